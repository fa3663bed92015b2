#include "lib/kernels/cuda/boxes.h"
#include "lib/kernels/cuda/launch.cuh"

namespace uckpt::kernels::cuda {

template void launch_on<RunBody>(void*, const Boxes&, int64_t);
template void launch_on<ItemBody>(void*, const Boxes&, int64_t);
template void launch_on<TileBody<false>>(void*, const Boxes&, int64_t);
template void launch_on<TileBody<true>>(void*, const Boxes&, int64_t);

}  // namespace uckpt::kernels::cuda
