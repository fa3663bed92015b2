#include "lib/kernels/cuda/flat.h"
#include "lib/kernels/cuda/launch.cuh"

namespace uckpt::kernels::cuda {

template void launch_on<ArithmeticBody>(void*, const ArithmeticArgs&, int64_t);
template void launch_on<FlagBody>(void*, const FlagArgs&, int64_t);
template void launch_on<CompareBody>(void*, const CompareArgs&, int64_t);

}  // namespace uckpt::kernels::cuda
