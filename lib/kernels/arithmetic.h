// Sums, means and scaled values of float elements back to back, each operation rounded to the element's own
// type (to nearest even), as the frameworks' own scripts compute them.
#pragma once

#include <cstdint>

#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

// f16, bf16, f32 and f64 only.
bool has_arithmetic(DType dtype);
// into[i] = into[i] + other[i]
void add(uint8_t* into, const uint8_t* other, DType dtype, int64_t count);
// into[i] = into[i] / by
void divide(uint8_t* into, double by, DType dtype, int64_t count);
// into[i] = into[i] · factor + summand
void scale(uint8_t* into, double factor, double summand, DType dtype, int64_t count);

}  // namespace uckpt::kernels
