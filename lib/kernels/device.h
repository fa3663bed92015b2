// Devices that run kernels beside the CPU. No header of theirs is needed here: built without CUDA, there are
// none, and it is said why.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/kernels/lane.h"

namespace uckpt::kernels {

struct DeviceInfo {
  int number = 0;                       // as in cuda:0
  std::string name;                     // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;             // compute capability
  int64_t memory = 0, free_memory = 0;  // bytes
};

struct Devices {
  std::vector<DeviceInfo> found;
  std::string why_none;  // a clause: "uckpt was built without CUDA", "no NVIDIA driver is loaded"
};
Devices find_devices();

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Input and output lie on the device and, pinned, on the host. Throws trouble (`device.memory`) where there
  // is no room for it.
  virtual std::unique_ptr<Lane> make_lane(const LaneSizes& sizes) = 0;

  // Why it cannot read and write files itself, as a clause; empty: it can. The first call finds out, before
  // there are other threads.
  virtual std::string why_not_direct() { return "this device has no way past the host's memory"; }
  // `fd` is open past the page cache, and outlives the result. Null: not this file, and why. Thread-safe.
  virtual std::unique_ptr<DirectFile> open_direct(int /*fd*/, std::string& why_not) {
    why_not = why_not_direct();
    return nullptr;
  }
};
// Throws trouble (`device.missing`) naming what there is, or why there is none.
std::unique_ptr<Device> open_device(int number);

// Is it a device's, so that the CPU can still do the work?
inline bool is_of_device(const Error& error) { return error.code().starts_with("device."); }

}  // namespace uckpt::kernels
