#include "lib/kernels/differences.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/base/bytes.h"
#include "lib/kernels/cpu/counts.h"
#include "lib/kernels/numbers.h"

namespace uckpt::kernels {

namespace {

constexpr int64_t kBlock = 512;

// Where the larger value is; of equal ones the first place, so that the order of calls does not matter.
void keep_larger(double& most, int64_t& at, double value, int64_t place) {
  if (place < 0 || (at >= 0 && (value < most || (value == most && place > at)))) return;
  most = value;
  at = place;
}
void keep_first(int64_t& first, int64_t place) {
  if (place >= 0 && (first < 0 || place < first)) first = place;
}

// One pair of elements that are no equals, with |a - b| and |b|.
void add_apart(ValueDifferences& out, int64_t i, bool finite, double distance, double size,
               const Tolerance& tolerance) {
  if (finite && distance <= tolerance.absolute + tolerance.relative * size) {
    ++out.within;
    out.max_within = std::max(out.max_within, distance);
    return;
  }
  ++out.different;
  keep_first(out.first, i);
  if (!finite) {
    ++out.unlike;
    keep_first(out.first_unlike, i);
    return;
  }
  keep_larger(out.max_absolute, out.max_absolute_at, distance, i);
  if (size > 0) keep_larger(out.max_relative, out.max_relative_at, distance / size, i);
}

// Numbers that doubles hold: all is counted by vectors, and where a number was only if it is the first or the
// largest of all so far.
void compare_reals(const double* a, const double* b, int64_t count, const Tolerance& tolerance,
                   int64_t offset, ValueDifferences& out) {
  const BlockDifferences block = compare_doubles(a, b, count, tolerance);
  out.within += block.within;
  out.max_within = std::max(out.max_within, block.max_within);
  if (block.different == 0) return;
  out.different += block.different;
  out.unlike += block.unlike;
  const bool more = block.finite > 0 && (out.max_absolute_at < 0 || block.max_absolute > out.max_absolute),
             relatively =
                 block.sized > 0 && (out.max_relative_at < 0 || block.max_relative > out.max_relative);
  const bool first = out.first < 0, first_unlike = out.first_unlike < 0 && block.unlike > 0;
  if (!more && !relatively && !first && !first_unlike) return;
  ValueDifferences places;
  for (int64_t i = 0; i < count; ++i) {
    const double x = a[i], y = b[i];
    if (x == y || (x != x && y != y)) continue;
    add_apart(places, i, std::isfinite(x) && std::isfinite(y), std::fabs(x - y), std::fabs(y), tolerance);
  }
  if (first) out.first = places.first + offset;
  if (first_unlike) out.first_unlike = places.first_unlike + offset;
  if (more) out.max_absolute = places.max_absolute, out.max_absolute_at = places.max_absolute_at + offset;
  if (relatively)
    out.max_relative = places.max_relative, out.max_relative_at = places.max_relative_at + offset;
}

void compare_pairs(const double* a, const double* b, int64_t count, const Tolerance& tolerance,
                   ValueDifferences& out) {
  const auto is_nan = [](const double* z) { return z[0] != z[0] || z[1] != z[1]; };
  const auto is_finite = [](const double* z) { return std::isfinite(z[0]) && std::isfinite(z[1]); };
  for (int64_t i = 0; i < count; ++i) {
    const double *x = a + 2 * i, *y = b + 2 * i;
    if ((x[0] == y[0] && x[1] == y[1]) || (is_nan(x) && is_nan(y))) continue;
    add_apart(out, i, is_finite(x) && is_finite(y), std::hypot(x[0] - y[0], x[1] - y[1]),
              std::hypot(y[0], y[1]), tolerance);
  }
}

template <class Integer>
void compare_integers(const uint8_t* a, const uint8_t* b, int64_t count, const Tolerance& tolerance,
                      ValueDifferences& out) {
  for (int64_t i = 0; i < count; ++i) {
    const auto x = load_le<Integer>(a + 8 * i), y = load_le<Integer>(b + 8 * i);
    if (x == y) continue;
    const auto high = static_cast<uint64_t>(std::max(x, y)), low = static_cast<uint64_t>(std::min(x, y));
    add_apart(out, i, true, static_cast<double>(high - low), std::fabs(static_cast<double>(y)), tolerance);
  }
}

void compare_bytes(const uint8_t* a, const uint8_t* b, int64_t count, ValueDifferences& out) {
  for (int64_t i = 0; i < count; ++i) {
    if (a[i] == b[i]) continue;
    ++out.different;
    keep_first(out.first, i);
  }
}

void compare_block(const uint8_t* a, DType a_dtype, const uint8_t* b, DType b_dtype, int64_t count,
                   const Tolerance& tolerance, int64_t offset, ValueDifferences& out) {
  ValueDifferences part;
  double x[2 * kBlock], y[2 * kBlock];
  const auto load = [&](int64_t numbers) {
    to_doubles(a, part_of(a_dtype), numbers, x);
    to_doubles(b, part_of(b_dtype), numbers, y);
  };
  if (!has_numbers(a_dtype)) {
    compare_bytes(a, b, count, part);
  } else if (a_dtype == DType::kI64) {
    compare_integers<int64_t>(a, b, count, tolerance, part);
  } else if (a_dtype == DType::kU64) {
    compare_integers<uint64_t>(a, b, count, tolerance, part);
  } else if (info(a_dtype).kind == DTypeClass::kComplex) {
    load(2 * count);
    compare_pairs(x, y, count, tolerance, part);
  } else {
    load(count);
    compare_reals(x, y, count, tolerance, offset, out);
    return;
  }
  out.add(part, offset);
}

}  // namespace

void ValueDifferences::add(const ValueDifferences& part, int64_t offset) {
  const auto moved = [&](int64_t place) { return place < 0 ? place : place + offset; };
  bits += part.bits;
  different += part.different;
  within += part.within;
  unlike += part.unlike;
  keep_first(first, moved(part.first));
  keep_first(first_unlike, moved(part.first_unlike));
  keep_larger(max_absolute, max_absolute_at, part.max_absolute, moved(part.max_absolute_at));
  keep_larger(max_relative, max_relative_at, part.max_relative, moved(part.max_relative_at));
  max_within = std::max(max_within, part.max_within);
}

bool values_comparable(DType a, DType b) { return a == b || (fits_double(a) && fits_double(b)); }

ValueDifferences compare_values(const uint8_t* a, DType a_dtype, const uint8_t* b, DType b_dtype,
                                int64_t count, const Tolerance& tolerance) {
  const int64_t a_item = std::max(1, item_size(a_dtype)), b_item = std::max(1, item_size(b_dtype));
  const bool one_type = a_dtype == b_dtype;
  ValueDifferences out;
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min(kBlock, count - at);
    const uint8_t *x = a + at * a_item, *y = b + at * b_item;
    if (one_type && std::memcmp(x, y, static_cast<size_t>(n * a_item)) == 0) continue;
    if (one_type) out.bits += count_other_bits(x, y, n, a_item);
    compare_block(x, a_dtype, y, b_dtype, n, tolerance, at, out);
  }
  return out;
}

}  // namespace uckpt::kernels
