// A body as a kernel.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "lib/kernels/cuda/anywhere.h"
#include "lib/kernels/cuda/launch.h"

namespace uckpt::kernels::cuda {

template <class Body, int kPhase>
__device__ __forceinline__ void run_phases(const typename Body::Args& args, typename Body::Shared& shared,
                                           int64_t unit) {
  if constexpr (kPhase < Body::kPhases) {
    if constexpr (kPhase > 0) __syncthreads();
    Body::template run<kPhase>(args, shared, unit, static_cast<int>(threadIdx.x));
    run_phases<Body, kPhase + 1>(args, shared, unit);
  }
}

template <class Body>
__global__ void __launch_bounds__(kThreads, Body::kBlocksEach)
    run_body(const __grid_constant__ typename Body::Args args, int64_t units) {
  __shared__ typename Body::Shared shared;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    if (Body::kPhases > 1 && unit != blockIdx.x) __syncthreads();
    run_phases<Body, 0>(args, shared, unit);
  }
}

template <class Body>
void launch_on(void* stream, const typename Body::Args& args, int64_t units) {
  if (units <= 0) return;
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  run_body<Body><<<static_cast<unsigned>(std::min(units, kMostBlocks)), kThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(args, units);
}

template <class Body>
int blocks_of() {
  int blocks = 0;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, run_body<Body>, kThreads, 0) != cudaSuccess) {
    (void)cudaGetLastError();
    return Body::kBlocksEach;
  }
  return std::max(blocks, 1);
}

}  // namespace uckpt::kernels::cuda
