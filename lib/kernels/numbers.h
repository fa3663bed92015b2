// Elements of any type as doubles: what comparing values and statistics work on.
#pragma once

#include <cstdint>

#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

// Is each element a number, or a pair of them? All types but those under a byte.
bool has_numbers(DType dtype);
// Does a double hold every number of the type? Not so for integers of 64 bits, which are rounded, nor for
// pairs.
bool fits_double(DType dtype);
// The type of a pair's halves, real part first; any other type itself.
DType part_of(DType dtype);
// The least normal number; 0 where the type has no denormals.
double least_normal(DType dtype);

// `count` numbers of a type that is no pair (use `part_of`). A bool is 1 unless its byte is 0; NaNs become
// NaNs.
void to_doubles(const uint8_t* src, DType dtype, int64_t count, double* out);

}  // namespace uckpt::kernels
