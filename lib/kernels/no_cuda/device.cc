// What there is where uckpt was built without CUDA.
#include "lib/kernels/device.h"

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::kernels {

Devices find_devices() { return {{}, "uckpt was built without CUDA"}; }

std::unique_ptr<Device> open_device(int number) {
  throw trouble("device.missing",
                cat("there is no device cuda:", number, " to use: ", find_devices().why_none))
      .hint("--device cpu needs none");
}

}  // namespace uckpt::kernels
