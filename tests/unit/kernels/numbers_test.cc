#include "lib/kernels/numbers.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/unit/kernels/naive_numbers.h"

using namespace uckpt;
using namespace uckpt::kernels;
using namespace uckpt::kernels::testing;

namespace {

void check_numbers(const Bytes& bytes, DType dtype) {
  const int64_t item = item_size(dtype), count = static_cast<int64_t>(bytes.size()) / item;
  std::vector<double> found(static_cast<size_t>(count));
  to_doubles(bytes.data(), dtype, count, found.data());
  for (int64_t i = 0; i < count; ++i) {
    const NaiveNumber want = naive_number(bytes.data() + i * item, dtype);
    const double have = found[static_cast<size_t>(i)];
    CAPTURE(i);
    if (std::isnan(want.value)) {
      CHECK(std::isnan(have));
      continue;
    }
    CHECK(have == static_cast<double>(want.value));
    CHECK(std::signbit(have) == std::signbit(want.value));
    if (fits_double(dtype)) CHECK(static_cast<long double>(have) == want.value);
    CHECK((have != 0 && std::fabs(have) < least_normal(dtype)) == want.denormal);
  }
}

}  // namespace

TEST_CASE("elements of every type as doubles") {
  std::mt19937 rng(1);
  for (const DType dtype : types_with_numbers(false)) {
    CAPTURE(name_of(dtype));
    if (item_size(dtype) <= 2) {  // every value
      Bytes all(static_cast<size_t>(item_size(dtype)) << bits_of(dtype));
      for (uint32_t i = 0; i < 1u << bits_of(dtype); ++i)
        std::memcpy(all.data() + i * static_cast<size_t>(item_size(dtype)), &i,
                    static_cast<size_t>(item_size(dtype)));
      check_numbers(all, dtype);
    } else {
      check_numbers(random_elements(dtype, 10007, rng, true), dtype);
    }
  }
}

TEST_CASE("types under a byte have no numbers, and wide integers do not fit") {
  CHECK(!has_numbers(DType::kF4));
  CHECK(!has_numbers(DType::kF6E2M3));
  CHECK(has_numbers(DType::kC32));
  CHECK(!fits_double(DType::kI64));
  CHECK(!fits_double(DType::kU64));
  CHECK(!fits_double(DType::kC64));
  CHECK(fits_double(DType::kU32));
  CHECK(part_of(DType::kC32) == DType::kF16);
  CHECK(part_of(DType::kC64) == DType::kF32);
  CHECK(part_of(DType::kC128) == DType::kF64);
  CHECK(part_of(DType::kI8) == DType::kI8);
}
