// What the elements of a tensor are like: their range, mean, deviation and norm, and how many are odd.
//
// A tensor is cut into blocks of `kStatisticsBlock` elements, and those are put together along the one binary
// tree over their indices: so the result has the same bits, in whatever order the blocks are done and by
// however many threads.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

inline constexpr int64_t kStatisticsBlock = 2048;

// Of pairs (complex numbers) those of their magnitudes; one is NaN or else infinite, and it is denormal,
// where a half of it is. Only finite elements count for the range, the mean, the deviation and the norm.
struct Statistics {
  int64_t count = 0, zeros = 0, nans = 0, infinities = 0, denormals = 0;
  double min = std::numeric_limits<double>::infinity(), max = -std::numeric_limits<double>::infinity();
  // Of integers of 64 bits, which doubles do not hold, as numbers that are in the same order.
  uint64_t min_key = std::numeric_limits<uint64_t>::max(), max_key = 0;
  // Of the finite elements; their range is wider than that of doubles.
  long double sum = 0, squares = 0;  // the sum of (x - mean)²

  int64_t finite() const { return count - nans - infinities; }
  // 0 where nothing is finite.
  double mean() const;
  double deviation() const;  // the root of the mean of (x - mean)²
  double norm() const;       // the root of the sum of x²
  // The integer of a key, of the type that it is of.
  static int64_t signed_of(uint64_t key) { return static_cast<int64_t>(key ^ (uint64_t{1} << 63)); }

  // Those of other elements; which of the two is added to the other does not change a bit.
  void add(const Statistics& other);
};

// Of one block, at most. Types under a byte have none.
Statistics statistics_of(const uint8_t* data, DType dtype, int64_t count);

// The blocks of a tensor, in any order, each once; neighbours are put together at once.
class BlockStatistics {
 public:
  void add(int64_t block, const Statistics& of_block) { add_node(0, block, of_block); }
  // Those of other blocks of the same tensor.
  void add(const BlockStatistics& other);
  Statistics total() const;

 private:
  void add_node(int level, int64_t index, Statistics node);
  // A node of level l and index i is the blocks [i·2^l, (i+1)·2^l). By its first block.
  std::map<int64_t, std::pair<int, Statistics>> nodes_;
};

}  // namespace uckpt::kernels
