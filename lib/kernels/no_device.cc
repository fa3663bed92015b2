#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/kernels/device.h"

namespace uckpt::kernels {

Devices find_devices() { return {{}, "uckpt was built without CUDA"}; }

std::unique_ptr<Device> open_device(int number) {
  throw trouble("device.missing", cat("cuda:", number, ": ", find_devices().why_none));
}

}  // namespace uckpt::kernels
