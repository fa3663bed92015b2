#include "lib/kernels/differences.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/kernels/numbers.h"
#include "tests/unit/kernels/naive_numbers.h"

using namespace uckpt;
using namespace uckpt::kernels;
using namespace uckpt::kernels::testing;

namespace {

std::complex<long double> value_at(const uint8_t* p, DType dtype) {
  if (info(dtype).kind != DTypeClass::kComplex) return naive_number(p, dtype).value;
  const DType part = part_of(dtype);
  return {naive_number(p, part).value, naive_number(p + item_size(part), part).value};
}

bool is_nan(std::complex<long double> z) { return std::isnan(z.real()) || std::isnan(z.imag()); }
bool is_finite(std::complex<long double> z) { return std::isfinite(z.real()) && std::isfinite(z.imag()); }

// One element after the other, as the header says it.
ValueDifferences naive(const Bytes& a, DType a_dtype, const Bytes& b, DType b_dtype, const Tolerance& t) {
  ValueDifferences out;
  const size_t a_item = static_cast<size_t>(item_size(a_dtype)),
               b_item = static_cast<size_t>(item_size(b_dtype));
  for (size_t i = 0; i < a.size() / a_item; ++i) {
    const uint8_t *p = a.data() + i * a_item, *q = b.data() + i * b_item;
    if (a_dtype == b_dtype && std::memcmp(p, q, a_item) != 0) ++out.bits;
    const auto x = value_at(p, a_dtype), y = value_at(q, b_dtype);
    if (x == y || (is_nan(x) && is_nan(y))) continue;
    const bool finite = is_finite(x) && is_finite(y);
    const auto distance = static_cast<double>(std::abs(x - y)), size = static_cast<double>(std::abs(y));
    const auto at = static_cast<int64_t>(i);
    if (finite && distance <= t.absolute + t.relative * size) {
      ++out.within;
      out.max_within = std::max(out.max_within, distance);
      continue;
    }
    ++out.different;
    if (out.first < 0) out.first = at;
    if (!finite) {
      ++out.unlike;
      if (out.first_unlike < 0) out.first_unlike = at;
      continue;
    }
    if (out.max_absolute_at < 0 || distance > out.max_absolute)
      out.max_absolute = distance, out.max_absolute_at = at;
    if (size > 0 && (out.max_relative_at < 0 || distance / size > out.max_relative))
      out.max_relative = distance / size, out.max_relative_at = at;
  }
  return out;
}

void check_same(const ValueDifferences& found, const ValueDifferences& want) {
  CHECK(found.bits == want.bits);
  CHECK(found.different == want.different);
  CHECK(found.within == want.within);
  CHECK(found.unlike == want.unlike);
  CHECK(found.first == want.first);
  CHECK(found.first_unlike == want.first_unlike);
  CHECK(found.max_absolute_at == want.max_absolute_at);
  CHECK(found.max_relative_at == want.max_relative_at);
  CHECK(near(found.max_absolute, want.max_absolute));
  CHECK(near(found.max_relative, want.max_relative));
  CHECK(near(found.max_within, want.max_within));
}

ValueDifferences compared(const Bytes& a, DType a_dtype, const Bytes& b, DType b_dtype, const Tolerance& t) {
  return compare_values(a.data(), a_dtype, b.data(), b_dtype,
                        static_cast<int64_t>(a.size()) / item_size(a_dtype), t);
}

template <class T>
Bytes bytes_of_all(std::initializer_list<T> values) {
  Bytes out(values.size() * sizeof(T));
  std::memcpy(out.data(), values.begin(), out.size());
  return out;
}

}  // namespace

TEST_CASE("every type against the slow reference, in any number of elements") {
  std::mt19937 rng(2);
  for (const DType dtype : types_with_numbers(true)) {
    CAPTURE(name_of(dtype));
    for (const int64_t count : {0, 1, 2, 511, 512, 513, 1027}) {
      const Bytes a = random_elements(dtype, count, rng, true);
      Bytes b = random_elements(dtype, count, rng, true);
      for (size_t i = 0; i < b.size(); ++i)  // some bytes alike, so that elements are near or equal
        if (rng() % 4 != 0) b[i] = a[i];
      for (const Tolerance t : {Tolerance{}, Tolerance{0, 1e-3}, Tolerance{1e-3, 0.1}, Tolerance{100, 0}}) {
        if (item_size(dtype) == 16 && t.relative > 0)
          continue;  // a tolerance may overflow here, and not there
        check_same(compared(a, dtype, b, dtype, t), naive(a, dtype, b, dtype, t));
      }
      CHECK(compared(a, dtype, a, dtype, {}).bits == 0);
      CHECK(compared(a, dtype, a, dtype, {}).different == 0);
    }
  }
}

TEST_CASE("two types whose numbers a double holds") {
  std::mt19937 rng(3);
  for (const DType a_dtype : types_with_numbers(true)) {
    for (const DType b_dtype : types_with_numbers(true)) {
      CAPTURE(name_of(a_dtype));
      CAPTURE(name_of(b_dtype));
      CHECK(values_comparable(a_dtype, b_dtype) ==
            (a_dtype == b_dtype || (fits_double(a_dtype) && fits_double(b_dtype))));
      if (a_dtype == b_dtype || !values_comparable(a_dtype, b_dtype)) continue;
      const Bytes a = random_elements(a_dtype, 601, rng, true), b = random_elements(b_dtype, 601, rng, true);
      check_same(compared(a, a_dtype, b, b_dtype, {0.5, 0.5}), naive(a, a_dtype, b, b_dtype, {0.5, 0.5}));
    }
  }
}

TEST_CASE("zeros of two signs and NaNs of two kinds are other bits, not other values") {
  const Bytes a = bytes_of_all<uint32_t>({0x00000000, 0x7fc00000, 0x7f800000, 0x3f800000}),
              b = bytes_of_all<uint32_t>({0x80000000, 0xffc00001, 0x7f800000, 0x3f800000});
  const ValueDifferences found = compared(a, DType::kF32, b, DType::kF32, {});
  CHECK(found.bits == 2);
  CHECK(found.different == 0);
  CHECK(found.within == 0);
}

TEST_CASE("infinities equal only themselves, whatever the tolerance") {
  const Bytes a = bytes_of_all<double>({INFINITY, -INFINITY, INFINITY, 1, NAN}),
              b = bytes_of_all<double>({INFINITY, INFINITY, 1, -INFINITY, 1});
  const ValueDifferences found = compared(a, DType::kF64, b, DType::kF64, {1e300, 1e300});
  CHECK(found.different == 4);
  CHECK(found.unlike == 4);
  CHECK(found.first == 1);
  CHECK(found.first_unlike == 1);
  CHECK(found.max_absolute_at == -1);
}

TEST_CASE("integers of 64 bits are subtracted exactly") {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min(), kMost = std::numeric_limits<int64_t>::max();
  const Bytes a = bytes_of_all<int64_t>({kMost, kMost, 5}), b = bytes_of_all<int64_t>({kMost - 1, kLeast, 5});
  const ValueDifferences found = compared(a, DType::kI64, b, DType::kI64, {1, 0});
  CHECK(found.within == 1);
  CHECK(found.max_within == 1);
  CHECK(found.different == 1);
  CHECK(found.max_absolute == 0x1p64);
  const Bytes c = bytes_of_all<uint64_t>({~uint64_t{0}}), d = bytes_of_all<uint64_t>({0});
  CHECK(compared(c, DType::kU64, d, DType::kU64, {}).max_absolute == 0x1p64);
  CHECK(compared(d, DType::kU64, c, DType::kU64, {}).max_absolute == 0x1p64);
}

TEST_CASE("types under a byte are compared by bytes") {
  const Bytes a = {1, 2, 3, 4}, b = {1, 9, 3, 8};
  const ValueDifferences found = compare_values(a.data(), DType::kF4, b.data(), DType::kF4, 4, {100, 1});
  CHECK(found.bits == 2);
  CHECK(found.different == 2);
  CHECK(found.first == 1);
  CHECK(found.max_absolute_at == -1);
}

TEST_CASE("parts add up in any order") {
  std::mt19937 rng(4);
  const Bytes a = random_elements(DType::kF16, 3000, rng, true);
  Bytes b = random_elements(DType::kF16, 3000, rng, true);
  std::copy_n(a.begin(), 1000, b.begin());
  const ValueDifferences whole = compared(a, DType::kF16, b, DType::kF16, {0.1, 0});
  for (const bool backwards : {false, true}) {
    ValueDifferences sum;
    std::vector<int64_t> begins = {0, 7, 512, 1300, 2999};
    std::vector<int64_t> order = {0, 1, 2, 3, 4};
    if (backwards) std::reverse(order.begin(), order.end());
    for (const int64_t i : order) {
      const int64_t begin = begins[static_cast<size_t>(i)],
                    end = i == 4 ? 3000 : begins[static_cast<size_t>(i) + 1];
      sum.add(compare_values(a.data() + 2 * begin, DType::kF16, b.data() + 2 * begin, DType::kF16,
                             end - begin, {0.1, 0}),
              begin);
    }
    check_same(sum, whole);
    CHECK(sum.max_absolute == whole.max_absolute);
  }
}
