#include "lib/kernels/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lib/base/bytes.h"
#include "lib/kernels/cpu/moments.h"
#include "lib/kernels/floats.h"
#include "lib/kernels/numbers.h"

namespace uckpt::kernels {

namespace {

// The power of two by which these are multiplied so that no square leaves the range of doubles; 0 for 2^0.
int scale_for(double least, double most) {
  const double size = std::max(std::fabs(least), std::fabs(most));
  if (size == 0 || (size > 0x1p-400 && size < 0x1p400)) return 0;
  return -std::ilogb(size);
}

// Sum and squares of finite numbers, in two passes. It may change them.
void add_up(double* x, int64_t count, Statistics& out) {
  if (count == 0) return;
  const Moments found = moments_of(x, count);
  out.min = found.min, out.max = found.max;
  double sum = found.sum;
  const int scale = scale_for(out.min, out.max);
  if (scale != 0) {
    for (int64_t i = 0; i < count; ++i) x[i] = std::ldexp(x[i], scale);
    sum = moments_of(x, count).sum;
  }
  const double squares = squares_about(sum / static_cast<double>(count), x, count);
  out.sum = std::ldexp(static_cast<long double>(sum), -scale);
  out.squares = std::ldexp(static_cast<long double>(squares), -2 * scale);
}

// By the bits, many at once: comparing doubles one by one takes longer than all the sums.
void count_kinds(const uint8_t* data, int64_t count, const FloatBits& bits, Statistics& out) {
  const KindCounts found = count_kinds(data, count, bits);
  out.zeros = found.zeros;
  out.denormals = found.below_normal - found.zeros;
  out.infinities = bits.top == bits.special ? found.tops : 0;
  out.nans = found.special - out.infinities;
}
template <class Format>
void count_kinds(const uint8_t* data, int64_t count, Statistics& out) {
  count_kinds(data, count,
              {sizeof(typename Format::Stored), Format::kTop, Format::kFirstSpecial,
               uint64_t{1} << Format::kMantissa},
              out);
}

// Of any other type, by its numbers.
void count_kinds(const double* x, int64_t count, double normal, Statistics& out) {
  constexpr uint64_t kInfinite = 0x7ff0000000000000;
  count_kinds(reinterpret_cast<const uint8_t*>(x), count,
              {8, kInfinite, kInfinite, std::bit_cast<uint64_t>(normal)}, out);
  if (normal == 0) out.denormals = 0;
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
      return count_kinds(data, count, {4, 0x7f800000, 0x7f800000, uint64_t{1} << 23}, out);
    case DType::kF64:
      return count_kinds(data, count, {8, 0x7ff0000000000000, 0x7ff0000000000000, uint64_t{1} << 52}, out);
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
