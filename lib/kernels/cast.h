// Float elements of one type as another.
#pragma once

#include <cstdint>

#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

// Both are of f64, f32, f16, bf16, f8_e4m3 and f8_e5m2.
bool can_cast(DType from, DType to);

// `count` elements back to back; the ranges do not overlap. Each is rounded to the nearest, ties to even,
// once: from f64 too, where torch rounds to f32 first. NaNs stay NaNs and keep their sign. What is too large
// becomes infinite, but in f8_e4m3, which has no infinities, the largest number, 448, infinities too:
// torch 2.13's `.to` does the same.
void cast(const uint8_t* src, DType src_dtype, uint8_t* dst, DType dst_dtype, int64_t count);

}  // namespace uckpt::kernels
