#include "lib/exec/device_use.h"

#include <algorithm>

#include "lib/exec/copy_rules.h"
#include "lib/io/direct.h"

namespace uckpt::exec {

using kernels::LaneSizes;
using kernels::Region;

namespace {

// While one task is read and another written, a third is on the device.
constexpr int kMostLanesOfWorker = 3;

// How many bytes of copies lie against one of a tensor's, at most.
int64_t widest_copy(const plan::Plan& plan) {
  int64_t ratio = 1;
  for (const plan::Move& m : plan.compares)
    if (m.dst_item > 0) ratio = std::max<int64_t>(ratio, (m.src_item + m.dst_item - 1) / m.dst_item);
  return ratio;
}

}  // namespace

LanePlan plan_lanes(const plan::Plan& plan, const Buffers& buffers, int64_t host_room,
                    const kernels::DeviceInfo& device) {
  const int64_t widest = std::max(buffers.task_bytes, buffers.strided_bytes);
  LanePlan lanes;
  lanes.sizes[Region::kInput] = widest + kStagingBytes;
  lanes.sizes[Region::kFilled] = widest;
  lanes.sizes[Region::kOther] = widest * (1 + widest_copy(plan)) + kPageBytes;
  lanes.sizes[Region::kOutput] = widest + kPageBytes;
  int64_t on_device = 0;
  for (const int64_t bytes : lanes.sizes.of) on_device += bytes;
  const int64_t on_host = lanes.sizes[Region::kInput] + lanes.sizes[Region::kOutput];
  const int64_t most = std::min(host_room / on_host, device.free_memory / 2 / on_device);
  lanes.per_worker = static_cast<int>(std::clamp<int64_t>(most / buffers.threads, 0, kMostLanesOfWorker));
  return lanes;
}

}  // namespace uckpt::exec
