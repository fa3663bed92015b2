// What this machine does a second, found out in about one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "lib/exec/device_choice.h"
#include "lib/exec/progress.h"
#include "lib/io/input.h"
#include "lib/kernels/device.h"

namespace uckpt::exec {

struct ProbeOptions {
  int threads = 1;
  double seconds = 1;                   // about; of both sides
  int64_t memory = int64_t{128} << 20;  // of the host, at most
  std::span<const std::shared_ptr<ByteSource>>
      inputs;                      // without bytes in them, reading goes by memcpy's rate
  std::string folder;              // where to write; likewise
  int files = 1;                   // written there at once
  bool sync = false;               // and until they are on the disk
  const StopFlag* stop = nullptr;  // then throws resumable `stopped`
  std::function<double()> now;     // seconds; empty: a steady clock's
};

// Of the CPU and of files. What is written is 64 MiB at most, without a name, and goes with its descriptor.
HostRates probe_host(const ProbeOptions& options);
// All but the start-up. Throws what a lane throws.
DeviceRates probe_device(kernels::Device& device, const ProbeOptions& options);

double steady_seconds();

}  // namespace uckpt::exec
