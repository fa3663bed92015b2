// Which device a run uses, with no more found out than it takes to tell.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/exec/device_choice.h"
#include "lib/exec/device_probe.h"
#include "lib/kernels/device.h"

namespace uckpt::exec {

// Where devices come from: this machine, or a test.
struct DeviceFinder {
  std::function<kernels::Devices()> find = kernels::find_devices;
  std::function<std::unique_ptr<kernels::Device>(int)> open = kernels::open_device;
};

// "cuda:0"
std::string name_of_device(int number);

// Throws trouble (`device.missing`) where one was asked for that is not there. Before anything is read.
void require_device(const DeviceChoice& asked, const DeviceFinder& finder = {});

struct OpenedDevice {
  std::unique_ptr<kernels::Device> device;
  double seconds;  // that it took, with a first lane
};
OpenedDevice open_timed(int number, const ProbeOptions& how, const DeviceFinder& finder = {});

struct Picked {
  std::shared_ptr<kernels::Device> device;  // null: the CPU
  std::string name;                         // "cpu", "cuda:0"
  std::string why;                          // a clause; empty where there was nothing to choose from
  Rates rates;                              // those that were measured
};

// Opens the device that was asked for, or the first one where it is worth it. Where it does not work it is
// the CPU, unless it was asked for: then it throws. `all` is read and written; where that is little, devices
// are not even looked for. `work` is called where there is one. Of `how`, the time is the most.
Picked pick_device(const DeviceChoice& asked, const Flow& all, const std::function<const Work&()>& work,
                   const ProbeOptions& how, const DeviceFinder& finder = {});

}  // namespace uckpt::exec
