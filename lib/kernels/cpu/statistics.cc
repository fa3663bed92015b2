#include "lib/kernels/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "lib/base/bytes.h"
#include "lib/kernels/floats.h"
#include "lib/kernels/numbers.h"

namespace uckpt::kernels {

namespace {

constexpr int64_t kLanes = 8;  // sums go side by side: fast, and in one order on every machine
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double sum_of(const double (&lanes)[kLanes]) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

void find_range(const double* x, int64_t count, double& min, double& max) {
  double low[kLanes], high[kLanes];
  std::fill_n(low, kLanes, kInfinity);
  std::fill_n(high, kLanes, -kInfinity);
  const auto see = [&](int64_t i, int64_t lane) {
    low[lane] = x[i] < low[lane] ? x[i] : low[lane];
    high[lane] = x[i] > high[lane] ? x[i] : high[lane];
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) see(i + lane, lane);
  for (; i < count; ++i) see(i, i % kLanes);
  min = *std::min_element(low, low + kLanes) + 0.0;  // -0 is 0
  max = *std::max_element(high, high + kLanes) + 0.0;
}

double sum_up(const double* x, int64_t count) {
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane];
  for (; i < count; ++i) sums[i % kLanes] += x[i];
  return sum_of(sums);
}

// The sum of (x - mean)², as if the mean were exact.
double squares_about(double mean, const double* x, int64_t count) {
  double squares[kLanes] = {}, rests[kLanes] = {};
  const auto see = [&](int64_t i, int64_t lane) {
    const double away = x[i] - mean;
    squares[lane] += away * away;
    rests[lane] += away;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) see(i + lane, lane);
  for (; i < count; ++i) see(i, i % kLanes);
  const double rest = sum_of(rests);
  return std::max(0.0, sum_of(squares) - rest * rest / static_cast<double>(count));
}

// The power of two by which these are multiplied so that no square leaves the range of doubles; 0 for 2^0.
int scale_for(double least, double most) {
  const double size = std::max(std::fabs(least), std::fabs(most));
  if (size == 0 || (size > 0x1p-400 && size < 0x1p400)) return 0;
  return -std::ilogb(size);
}

// Sum and squares of finite numbers, in two passes. It may change them.
void add_up(double* x, int64_t count, Statistics& out) {
  if (count == 0) return;
  find_range(x, count, out.min, out.max);
  const int scale = scale_for(out.min, out.max);
  if (scale != 0)
    for (int64_t i = 0; i < count; ++i) x[i] = std::ldexp(x[i], scale);
  const double sum = sum_up(x, count), squares = squares_about(sum / static_cast<double>(count), x, count);
  out.sum = std::ldexp(static_cast<long double>(sum), -scale);
  out.squares = std::ldexp(static_cast<long double>(squares), -2 * scale);
}

// The bits of the machine's own floats, as those of floats.h.
struct Single {
  using Stored = uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr Stored kTop = 0x7f800000, kFirstSpecial = kTop, kSign = 0x80000000;
};
struct Double {
  using Stored = uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr Stored kTop = 0x7ff0000000000000, kFirstSpecial = kTop, kSign = 0x8000000000000000;
};

// By the bits, many at once: comparing doubles one by one takes longer than all the sums.
template <class Format>
void count_kinds(const uint8_t* data, int64_t count, Statistics& out) {
  using Word = typename Format::Stored;
  using Counter = std::conditional_t<sizeof(Word) == 1, uint16_t, Word>;  // of a block at most
  constexpr auto kTop = static_cast<Word>(Format::kTop), kSpecial = static_cast<Word>(Format::kFirstSpecial),
                 kMagnitude = static_cast<Word>(Format::kSign - 1),
                 kNormal = static_cast<Word>(Word{1} << Format::kMantissa);
  constexpr bool kHasInfinities = kTop == kSpecial;
  constexpr int64_t kChunk = 64;
  Counter zeros = 0, small = 0, special = 0, infinities = 0;
  Word words[kChunk];
  for (int64_t i = 0; i < count; i += kChunk) {
    const auto n = static_cast<size_t>(std::min(kChunk, count - i));
    std::fill_n(words, kChunk, kNormal);  // counts for nothing
    std::memcpy(words, data + i * static_cast<int64_t>(sizeof(Word)), n * sizeof(Word));
    for (const Word word : words) {
      const auto magnitude = static_cast<Word>(word & kMagnitude);
      zeros = static_cast<Counter>(zeros + (magnitude == 0));
      small = static_cast<Counter>(small + (magnitude < kNormal));
      special = static_cast<Counter>(special + (magnitude >= kSpecial));
      infinities = static_cast<Counter>(infinities + (magnitude == kTop));
    }
  }
  out.zeros = static_cast<int64_t>(zeros);
  out.denormals = static_cast<int64_t>(small) - out.zeros;
  out.infinities = kHasInfinities ? static_cast<int64_t>(infinities) : 0;
  out.nans = static_cast<int64_t>(special) - out.infinities;
}

// Of any other type, by its numbers.
void count_kinds(const double* x, int64_t count, double normal, Statistics& out) {
  int64_t zeros = 0, nans = 0, infinities = 0, small = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double size = std::fabs(x[i]);
    zeros += size == 0;
    small += size < normal;
    nans += size != size;
    infinities += size == kInfinity;
  }
  out.zeros = zeros, out.nans = nans, out.infinities = infinities;
  out.denormals = normal > 0 ? small - zeros : 0;
}

// Magnitudes; zeros and denormals are counted by the halves.
void to_magnitudes(const double* parts, int64_t count, double normal, double* x, Statistics& out) {
  const auto is_denormal = [&](double part) { return part != 0 && std::fabs(part) < normal; };
  for (int64_t i = 0; i < count; ++i) {
    const double re = parts[2 * i], im = parts[2 * i + 1];
    x[i] = re != re || im != im ? std::numeric_limits<double>::quiet_NaN() : std::hypot(re, im);
    out.zeros += re == 0 && im == 0;
    out.denormals += is_denormal(re) || is_denormal(im);
  }
}

void count_kinds_of(const uint8_t* data, DType dtype, const double* x, int64_t count, Statistics& out) {
  switch (dtype) {
    case DType::kF16:
      return count_kinds<Half>(data, count, out);
    case DType::kBF16:
      return count_kinds<BFloat>(data, count, out);
    case DType::kF32:
      return count_kinds<Single>(data, count, out);
    case DType::kF64:
      return count_kinds<Double>(data, count, out);
    case DType::kF8E4M3:
      return count_kinds<E4M3>(data, count, out);
    case DType::kF8E5M2:
      return count_kinds<E5M2>(data, count, out);
    default:
      return count_kinds(x, count, least_normal(dtype), out);
  }
}

void find_keys(const uint8_t* data, int64_t count, uint64_t flip, Statistics& out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t key = load_le<uint64_t>(data + 8 * i) ^ flip;
    out.min_key = std::min(out.min_key, key);
    out.max_key = std::max(out.max_key, key);
  }
}

}  // namespace

double Statistics::mean() const {
  return finite() == 0 ? 0 : static_cast<double>(sum / static_cast<long double>(finite()));
}

double Statistics::deviation() const {
  return finite() == 0 ? 0 : static_cast<double>(std::sqrt(squares / static_cast<long double>(finite())));
}

double Statistics::norm() const {
  return finite() == 0
             ? 0
             : static_cast<double>(std::sqrt(squares + sum * (sum / static_cast<long double>(finite()))));
}

void Statistics::add(const Statistics& other) {
  const auto here = static_cast<long double>(finite()), there = static_cast<long double>(other.finite());
  if (here == 0) {
    sum = other.sum, squares = other.squares;
  } else if (there > 0) {
    const long double apart = other.sum / there - sum / here;
    squares = (squares + other.squares) + apart * apart * (here * there / (here + there));
    sum += other.sum;
  }
  count += other.count;
  zeros += other.zeros;
  nans += other.nans;
  infinities += other.infinities;
  denormals += other.denormals;
  min = std::min(min, other.min);
  max = std::max(max, other.max);
  min_key = std::min(min_key, other.min_key);
  max_key = std::max(max_key, other.max_key);
}

Statistics statistics_of(const uint8_t* data, DType dtype, int64_t count) {
  Statistics out;
  if (!has_numbers(dtype)) return out;
  double x[kStatisticsBlock];
  out.count = count;
  if (info(dtype).kind == DTypeClass::kComplex) {
    double parts[2 * kStatisticsBlock];
    to_doubles(data, part_of(dtype), 2 * count, parts);
    to_magnitudes(parts, count, least_normal(dtype), x, out);
    Statistics kinds;
    count_kinds(x, count, 0, kinds);
    out.nans = kinds.nans, out.infinities = kinds.infinities;
  } else {
    to_doubles(data, dtype, count, x);
    count_kinds_of(data, dtype, x, count, out);
    if (dtype == DType::kI64) find_keys(data, count, uint64_t{1} << 63, out);
    if (dtype == DType::kU64) find_keys(data, count, 0, out);
  }
  double* end = x + count;
  if (out.nans + out.infinities > 0) end = std::remove_if(x, end, [](double v) { return !std::isfinite(v); });
  add_up(x, end - x, out);
  return out;
}

void BlockStatistics::add(const BlockStatistics& other) {
  for (const auto& [first, node] : other.nodes_) add_node(node.first, first >> node.first, node.second);
}

void BlockStatistics::add_node(int level, int64_t index, Statistics node) {
  for (;;) {
    const auto sibling = nodes_.find((index ^ 1) << level);
    if (sibling == nodes_.end() || sibling->second.first != level) break;
    node.add(sibling->second.second);
    nodes_.erase(sibling);
    index >>= 1;
    ++level;
  }
  nodes_.emplace(index << level, std::pair(level, node));
}

Statistics BlockStatistics::total() const {
  Statistics out;
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node)  // the smallest are last
    out.add(node->second.second);
  return out;
}

}  // namespace uckpt::kernels
