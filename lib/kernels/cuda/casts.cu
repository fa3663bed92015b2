#include "lib/kernels/cuda/casts.h"
#include "lib/kernels/cuda/launch.cuh"

namespace uckpt::kernels::cuda {

template void launch_on<CastBody>(void*, const Boxes&, int64_t);

}  // namespace uckpt::kernels::cuda
