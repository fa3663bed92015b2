// Casts, arithmetic, comparisons and checksums: the same bits on every instruction set, in any number of
// elements, as of each element alone. What those bits have to be is asked in the tests of each kernel.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "lib/kernels/arithmetic.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/crc.h"
#include "lib/kernels/differences.h"
#include "lib/kernels/elements.h"
#include "lib/kernels/numbers.h"
#include "lib/kernels/statistics.h"
#include "tests/unit/kernels/every_target.h"
#include "tests/unit/kernels/naive_numbers.h"

using namespace uckpt;
using namespace uckpt::kernels;
using namespace uckpt::kernels::testing;

namespace {

constexpr DType kFloats[] = {DType::kF64,  DType::kF32,    DType::kF16,
                             DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};

// All of 8 and 16 bits; of wider types any, and many at the edges.
Bytes patterns_of(DType dtype, std::mt19937& rng) {
  if (item_size(dtype) > 2) {
    Bytes out = random_elements(dtype, 40'001, rng, true);
    // Numbers as large as the narrow types have, and exactly between two of theirs.
    const auto item = static_cast<size_t>(item_size(dtype));
    for (size_t at = 0; at + item <= out.size() / 2; at += item) {
      const double x =
          std::ldexp(1.0 + static_cast<double>(rng() % 4096) / 4096, static_cast<int>(rng() % 60) - 40);
      const auto single = static_cast<float>(x);
      if (item == 4)
        std::memcpy(&out[at], &single, item);
      else
        std::memcpy(&out[at], &x, item);
    }
    return out;
  }
  Bytes out;
  for (uint32_t code = 0; code < 1u << bits_of(dtype); ++code) {
    out.push_back(static_cast<uint8_t>(code));
    if (item_size(dtype) == 2) out.push_back(static_cast<uint8_t>(code >> 8));
  }
  return out;
}

Bytes casted(const uint8_t* src, DType from, DType to, int64_t count) {
  Bytes out(static_cast<size_t>(count * item_size(to)) + 2, 0xa5);
  cast(src, from, out.data() + 1, to, count);
  return out;
}

// Which is what `on_every_target` compares with: what the first of them made.
template <class Value, class Make>
void check_same_on_every_target(Make make) {
  bool is_first = true;
  Value first{};
  on_every_target([&] {
    Value now = make();
    if (is_first)
      first = std::move(now);
    else
      CHECK(now == first);
    is_first = false;
  });
}

}  // namespace

TEST_CASE("this machine's instruction sets are taken one after the other") {
  std::vector<int64_t> seen;
  on_every_target([&] {
    crc64_raw({});
    seen.push_back(hwy::SupportedTargets());
  });
  CHECK(!seen.empty());
  for (const int64_t target : seen) CHECK(std::has_single_bit(static_cast<uint64_t>(target)));
}

TEST_CASE("casts of all patterns are the same on every instruction set") {
  std::mt19937 rng(1);
  for (const DType from : kFloats) {
    const Bytes src = patterns_of(from, rng);
    for (const DType to : kFloats) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      check_same_on_every_target<Bytes>(
          [&] { return casted(src.data(), from, to, static_cast<int64_t>(src.size()) / item_size(from)); });
    }
  }
}

TEST_CASE("casts of odd numbers of elements at odd addresses are those of each element") {
  std::mt19937 rng(2);
  for (const DType from : kFloats) {
    const auto item = static_cast<size_t>(item_size(from));
    Bytes src = random_elements(from, 1009, rng, true);
    src.insert(src.begin(), 0);
    for (const DType to : kFloats) {
      const auto out = static_cast<size_t>(item_size(to));
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      Bytes alone(1 + 1009 * out, 0xa5);
      for (size_t i = 0; i < 1009; ++i)
        cast(src.data() + 1 + i * item, from, alone.data() + 1 + i * out, to, 1);
      on_every_target([&] {
        for (const int64_t count : kOddSizes) {
          Bytes want(alone.begin(), alone.begin() + 1 + static_cast<int64_t>(out) * count);
          want.push_back(0xa5);
          CHECK(casted(src.data() + 1, from, to, count) == want);
        }
      });
    }
  }
}

TEST_CASE("sums, quotients and scaled values round after each operation") {
  std::mt19937 rng(3);
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32, DType::kF64}) {
    CAPTURE(name_of(dtype));
    const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const auto item = static_cast<size_t>(item_size(dtype));
    Bytes a = random_elements(dtype, 1009, rng, true), b = random_elements(dtype, 1009, rng, true);
    // Half of them near one, so that sums are of like sizes, and products have bits to lose.
    for (size_t i = 0; i < 500; ++i) {
      const double x = 1 + static_cast<double>(rng()) * 0x1p-32, y = static_cast<double>(rng()) * 0x1p-33 - 1;
      cast(reinterpret_cast<const uint8_t*>(&x), DType::kF64, &a[i * item], dtype, 1);
      cast(reinterpret_cast<const uint8_t*>(&y), DType::kF64, &b[i * item], dtype, 1);
    }
    const double factor = 0.7071067811865476, summand = -0.2718281828459045;
    // One element after the other; `volatile` so that nothing is done in one step.
    const auto naive = [&](size_t i, auto operation) {
      double x = 0, y = 0;
      cast(&a[i * item], dtype, reinterpret_cast<uint8_t*>(&x), DType::kF64, 1);
      cast(&b[i * item], dtype, reinterpret_cast<uint8_t*>(&y), DType::kF64, 1);
      Bytes out(item);
      if (wide == DType::kF64) {
        const double z = operation(x, y);
        cast(reinterpret_cast<const uint8_t*>(&z), wide, out.data(), dtype, 1);
      } else {
        const float z = operation(static_cast<float>(x), static_cast<float>(y));
        cast(reinterpret_cast<const uint8_t*>(&z), wide, out.data(), dtype, 1);
      }
      return out;
    };
    const auto check = [&](auto kernel, auto operation) {
      Bytes want;
      for (size_t i = 0; i < 1009; ++i) {
        const Bytes one = naive(i, operation);
        want.insert(want.end(), one.begin(), one.end());
      }
      on_every_target([&] {
        for (const int64_t count : kOddSizes) {
          Bytes found(1, 0xa5);
          found.insert(found.end(), a.begin(), a.end());
          kernel(found.data() + 1, count);
          const Differences apart = compare_rounded(found.data() + 1, dtype, want.data(), dtype, count);
          CHECK(apart.count == 0);
          CHECK(apart.first == -1);
          const auto bytes = static_cast<size_t>(count) * item;
          CHECK(std::memcmp(found.data() + 1 + bytes, a.data() + bytes, a.size() - bytes) == 0);
        }
      });
    };
    check([&](uint8_t* into, int64_t count) { add(into, b.data(), dtype, count); },
          [](auto x, auto y) { return x + y; });
    check([&](uint8_t* into, int64_t count) { divide(into, 3, dtype, count); },
          [](auto x, auto) { return x / static_cast<decltype(x)>(3); });
    check([&](uint8_t* into, int64_t count) { scale(into, factor, summand, dtype, count); },
          [&](auto x, auto) {
            volatile auto product = x * static_cast<decltype(x)>(factor);
            return static_cast<decltype(x)>(product + static_cast<decltype(x)>(summand));
          });
    check([&](uint8_t* into, int64_t count) { scale(into, 1, summand, dtype, count); },
          [&](auto x, auto) { return x + static_cast<decltype(x)>(summand); });
  }
}

TEST_CASE(
    "comparison with a rounded copy counts what differs and tells the first, in odd numbers of elements") {
  std::mt19937 rng(4);
  const auto check = [&](DType wide, DType narrow_type) {
    CAPTURE(name_of(wide));
    CAPTURE(name_of(narrow_type));
    const auto w = static_cast<size_t>(std::max(1, item_size(wide))),
               n = static_cast<size_t>(std::max(1, item_size(narrow_type)));
    Bytes a = item_size(wide) > 0 ? random_elements(wide, 1009, rng, true) : Bytes(1009, 7);
    Bytes b = a;
    if (wide != narrow_type) {
      b.assign(1009 * n, 0);
      cast(a.data(), wide, b.data(), narrow_type, 1009);
    }
    const auto is_nan = [](const uint8_t* p, DType t) {
      const bool floats = t == DType::kF16 || t == DType::kBF16 || t == DType::kF32 || t == DType::kF64;
      return floats && std::isnan(naive_number(p, t).value);
    };
    std::vector<uint8_t> differs(1009, 0);
    for (size_t i = 0; i < 1009; ++i) {
      if (rng() % 50 != 0 && i != 62) continue;
      b[i * n + n - 1] ^= static_cast<uint8_t>(1 + rng() % 255);
      differs[i] = !(is_nan(&a[i * w], wide) && is_nan(&b[i * n], narrow_type));
    }
    a.insert(a.begin(), 0);
    on_every_target([&] {
      for (const int64_t begin : {0, 1, 40})
        for (const int64_t size : kOddSizes) {
          const int64_t count = std::min<int64_t>(size, 1009 - begin);
          Differences want;
          for (int64_t i = 0; i < count; ++i)
            if (differs[static_cast<size_t>(begin + i)] != 0 && want.count++ == 0) want.first = i;
          const Differences found =
              compare_rounded(a.data() + 1 + static_cast<size_t>(begin) * w, wide,
                              b.data() + static_cast<size_t>(begin) * n, narrow_type, count);
          CHECK(found.count == want.count);
          CHECK(found.first == want.first);
        }
    });
  };
  for (int i = 0; i < kDTypeCount; ++i) check(static_cast<DType>(i), static_cast<DType>(i));
  check(DType::kF32, DType::kF16);
  check(DType::kF32, DType::kBF16);
}

TEST_CASE("many differing elements of 8 bits are all counted") {
  const Bytes a(100'003, 1), b(100'003, 2);
  on_every_target([&] {
    CHECK(compare_rounded(a.data(), DType::kI8, b.data(), DType::kI8, 100'003).count == 100'003);
    CHECK(compare_rounded(a.data(), DType::kI8, b.data(), DType::kI8, 100'003).first == 0);
  });
}

TEST_CASE("what is exactly as far apart as the tolerance is within it, on every instruction set") {
  std::mt19937 rng(6);
  const Tolerance tolerance{0.3, 0.1};
  std::vector<double> a, b;
  while (a.size() < 500) {
    const double y = 1 + static_cast<double>(rng()) * 0x1p-30;
    volatile double product = tolerance.relative * y;  // so that it is rounded before it is added to
    const double limit = tolerance.absolute + product, x = y + limit;
    if (x - y != limit) continue;
    a.push_back(x);
    b.push_back(y);
  }
  on_every_target([&] {
    const ValueDifferences found =
        compare_values(reinterpret_cast<const uint8_t*>(a.data()), DType::kF64,
                       reinterpret_cast<const uint8_t*>(b.data()), DType::kF64, 500, tolerance);
    CHECK(found.within == 500);
  });
}

TEST_CASE("checksums, doubles, value differences and statistics are the same on every instruction set") {
  std::mt19937 rng(5);
  const Bytes bytes = random_elements(DType::kU8, 3001, rng, false);
  for (const size_t n :
       {0u, 1u, 15u, 16u, 17u, 255u, 256u, 257u, 300u, 511u, 512u, 513u, 1023u, 1040u, 3000u})
    check_same_on_every_target<uint64_t>([&] { return crc64_raw({bytes.data() + 1, n}); });
  for (const DType dtype : types_with_numbers(false)) {
    CAPTURE(name_of(dtype));
    const Bytes a = random_elements(dtype, 1500, rng, true);
    Bytes b = random_elements(dtype, 1500, rng, true);
    for (size_t i = 0; i < b.size(); ++i)
      if (rng() % 4 != 0) b[i] = a[i];
    for (const int64_t count : kOddSizes) {
      check_same_on_every_target<std::vector<uint64_t>>([&] {
        std::vector<double> numbers(static_cast<size_t>(count) + 1, 7);
        to_doubles(a.data(), dtype, count, numbers.data());
        std::vector<uint64_t> out;
        for (const double x : numbers) out.push_back(std::bit_cast<uint64_t>(x));
        for (const Tolerance t : {Tolerance{}, Tolerance{0.3, 0.1}}) {
          const ValueDifferences d = compare_values(a.data(), dtype, b.data(), dtype, count, t);
          for (const int64_t v : {d.bits, d.different, d.within, d.unlike, d.first, d.first_unlike,
                                  d.max_absolute_at, d.max_relative_at})
            out.push_back(static_cast<uint64_t>(v));
          for (const double v : {d.max_absolute, d.max_relative, d.max_within})
            out.push_back(std::bit_cast<uint64_t>(v));
        }
        const Statistics s = statistics_of(a.data(), dtype, count);
        for (const int64_t v : {s.zeros, s.nans, s.infinities, s.denormals})
          out.push_back(static_cast<uint64_t>(v));
        for (const double v : {s.min, s.max, static_cast<double>(s.sum), static_cast<double>(s.squares)})
          out.push_back(std::bit_cast<uint64_t>(v));
        return out;
      });
    }
  }
}
