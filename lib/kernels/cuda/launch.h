// What the sources of this folder that only CUDA's compiler reads know of each other.
#pragma once

#include <cstdint>

namespace uckpt::kernels::cuda {

// Queues a body for its units on a stream; an error is left for `cudaGetLastError`. Made in the source that
// has the body.
template <class Body>
void launch_on(void* stream, const typename Body::Args& args, int64_t units);
// Blocks of the body that a multiprocessor has room for.
template <class Body>
int blocks_of();

}  // namespace uckpt::kernels::cuda
