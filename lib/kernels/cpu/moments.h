// What a block's statistics are made of: passes over its doubles and its bits. Sums go in eight lanes, so
// that they have one order on every machine.
#pragma once

#include <cstdint>

namespace uckpt::kernels {

struct Moments {
  double min, max, sum;
};
// Of finite numbers; infinities, the other way round, where there are none. -0 is 0.
Moments moments_of(const double* x, int64_t count);

// The sum of (x - mean)², as if the mean were exact.
double squares_about(double mean, const double* x, int64_t count);

// The bits of a float of 1, 2, 4 or 8 bytes: magnitudes of `normal` on are normal, of `special` on no
// numbers; `top` is infinity.
struct FloatBits {
  int64_t item;
  uint64_t top, special, normal;
};
struct KindCounts {
  int64_t zeros = 0, below_normal = 0, special = 0, tops = 0;
};
KindCounts count_kinds(const uint8_t* data, int64_t count, const FloatBits& bits);

}  // namespace uckpt::kernels
