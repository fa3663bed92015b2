// A device at the side of the workers: which holes it fills, and what memory it has for that.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/exec/tasks.h"
#include "lib/kernels/device.h"

namespace uckpt::exec {

struct DeviceUse {
  std::shared_ptr<kernels::Device> device;
  std::vector<bool> holes;  // those whose elements are reshaped, and not only copied
  int64_t host_room = 0;    // bytes of our own memory for its lanes
};

// What the lanes of a run are to be.
struct LanePlan {
  kernels::LaneSizes sizes;
  int per_worker = 0;  // 0: there is no memory for them
};

// Each worker has as many lanes as keep device and disk busy at once, if host and device have the memory.
LanePlan plan_lanes(const plan::Plan& plan, const Buffers& buffers, int64_t host_room,
                    const kernels::DeviceInfo& device);

}  // namespace uckpt::exec
