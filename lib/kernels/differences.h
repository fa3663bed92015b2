// How the elements of two arrays differ, as bits and as numbers.
#pragma once

#include <cstdint>

#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

// Two finite numbers are as good as equal where |a - b| <= absolute + relative · |b|, as in numpy.isclose.
struct Tolerance {
  double absolute = 0, relative = 0;
};

// NaN equals NaN whatever its bits, infinities equal themselves, 0 equals -0. Of pairs (complex numbers) |x|
// is the magnitude, one with a NaN in it is NaN, and one with an infinity is not finite.
struct ValueDifferences {
  int64_t bits = 0;                           // elements that differ in any bit; of two types: none
  int64_t different = 0;                      // that are farther apart than the tolerance
  int64_t within = 0;                         // that are apart, but not that far
  int64_t unlike = 0;                         // of the different ones, those where not both are finite
  int64_t first = -1, first_unlike = -1;      // the first of them
  double max_absolute = 0, max_relative = 0;  // |a - b| and, where b is not 0, |a - b| / |b| of the others
  int64_t max_absolute_at = -1, max_relative_at = -1;  // -1: there is none; the first of equal ones
  double max_within = 0;                               // |a - b| of those within

  // Those of elements that begin at `offset` of these. The order does not matter.
  void add(const ValueDifferences& part, int64_t offset);
};

// The same type, or two real ones whose numbers a double holds.
bool values_comparable(DType a, DType b);

// Of `count` elements back to back; elements of types under a byte go by bytes and have no numbers. Integers
// are subtracted exactly, all else in doubles.
ValueDifferences compare_values(const uint8_t* a, DType a_dtype, const uint8_t* b, DType b_dtype,
                                int64_t count, const Tolerance& tolerance);

}  // namespace uckpt::kernels
