#include "lib/kernels/cuda/checksums.h"
#include "lib/kernels/cuda/launch.cuh"

namespace uckpt::kernels::cuda {

template void launch_on<Crc32Body>(void*, const Crc32Body::Args&, int64_t);
template void launch_on<Crc64Body>(void*, const Crc64Body::Args&, int64_t);
template int blocks_of<Crc32Body>();
template int blocks_of<Crc64Body>();

}  // namespace uckpt::kernels::cuda
