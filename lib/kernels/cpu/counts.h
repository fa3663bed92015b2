// How many elements of two arrays differ, and by how much at most: what vectors can tell without saying
// where.
#pragma once

#include <cstdint>

#include "lib/kernels/differences.h"

namespace uckpt::kernels {

// Items whose bytes differ.
int64_t count_other_bits(const uint8_t* a, const uint8_t* b, int64_t count, int64_t item);

// As in `ValueDifferences`; of the different ones `finite` are finite on both sides, and `sized` of those
// have a b that is not 0.
struct BlockDifferences {
  int64_t within = 0, different = 0, unlike = 0, finite = 0, sized = 0;
  double max_within = 0, max_absolute = 0, max_relative = 0;
};
BlockDifferences compare_doubles(const double* a, const double* b, int64_t count, const Tolerance& tolerance);

}  // namespace uckpt::kernels
