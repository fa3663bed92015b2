#include "lib/kernels/elements.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace uckpt;
using namespace uckpt::kernels;

namespace {

// What a 16-bit float stands for, by arithmetic on its fields.
double value_of(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int e = bits >> mantissa_bits & ((1 << exponent_bits) - 1), m = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (e == (1 << exponent_bits) - 1) return m != 0 ? NAN : sign * INFINITY;
  const double fraction = e == 0 ? std::ldexp(m, 1 - bias - mantissa_bits)
                                 : std::ldexp(m + (1 << mantissa_bits), e - bias - mantissa_bits);
  return sign * fraction;
}

// The nearest 16-bit float by search: the neighbours of a value, ties to the even one.
uint16_t naive_round(float x, int exponent_bits) {
  const uint16_t infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  const double a = std::fabs(static_cast<double>(x));
  uint16_t low = 0, high = infinity;
  while (high - low > 1) {
    const auto mid = static_cast<uint16_t>((low + high) / 2);
    (value_of(mid, exponent_bits) <= a ? low : high) = mid;
  }
  // The step to infinity counts as one more step of the largest exponent.
  const double below = value_of(low, exponent_bits);
  const double above = high == infinity ? 2 * below - value_of(static_cast<uint16_t>(low - 1), exponent_bits)
                                        : value_of(high, exponent_bits);
  uint16_t r = a - below < above - a ? low : a - below > above - a ? high : low % 2 == 0 ? low : high;
  if (std::isinf(x)) r = infinity;
  return static_cast<uint16_t>(r | (std::signbit(x) ? 0x8000 : 0));
}

bool equal(float wide, uint16_t narrow, DType dtype) {
  return compare_rounded(reinterpret_cast<const uint8_t*>(&wide), DType::kF32,
                         reinterpret_cast<const uint8_t*>(&narrow), dtype, 1)
             .count == 0;
}

}  // namespace

TEST_CASE("rounding to 16 bits is to the nearest even") {
  struct Kind {
    DType dtype;
    int exponent_bits;
  };
  for (const Kind k : {Kind{DType::kBF16, 8}, Kind{DType::kF16, 5}}) {
    CAPTURE(name_of(k.dtype));
    std::mt19937 rng(3);
    std::vector<float> values = {0.f,      -0.f,      65504.f, 65519.996f, 65520.f,  65536.f,  3.4e38f,
                                 INFINITY, -INFINITY, 1e-8f,   6e-8f,      5.96e-8f, 2.98e-8f, 1e-45f};
    for (int i = 0; i < 20000; ++i) {
      const float x = std::bit_cast<float>(static_cast<uint32_t>(rng()));
      if (!std::isnan(x)) values.push_back(x);
      // Exactly halfway between two neighbours, and one step to either side.
      const uint32_t half = (static_cast<uint32_t>(rng()) & 0xffff0000u) | 0x8000u;
      for (uint32_t step : {half - 1, half, half + 1})
        if (!std::isnan(std::bit_cast<float>(step))) values.push_back(std::bit_cast<float>(step));
      values.push_back(std::ldexp(static_cast<float>(rng() % 8192), -25 - static_cast<int>(rng() % 3)));
    }
    for (float x : values) {
      const uint16_t want = naive_round(x, k.exponent_bits);
      CAPTURE(x);
      REQUIRE(equal(x, want, k.dtype));
      REQUIRE(!equal(x, static_cast<uint16_t>(want ^ 1), k.dtype));
    }
    CHECK(equal(NAN, 0x7fff, k.dtype));
    CHECK(equal(NAN, 0xffff, k.dtype));
    CHECK(!equal(NAN, 0, k.dtype));
    CHECK(!equal(1.f, 0x7fff, k.dtype));
  }
}

TEST_CASE("differences are counted and the first is told") {
  const std::vector<float> a = {1, 2, NAN, 4, 5}, b = {1, 3, NAN, 4, 6};
  const auto d = compare_rounded(reinterpret_cast<const uint8_t*>(a.data()), DType::kF32,
                                 reinterpret_cast<const uint8_t*>(b.data()), DType::kF32, 5);
  CHECK(d.count == 2);
  CHECK(d.first == 1);
}

TEST_CASE("strided copies of all item sizes equal the naive loop") {
  std::mt19937 rng(4);
  for (const size_t item : {1u, 2u, 3u, 4u, 8u, 12u, 16u}) {
    for (int round = 0; round < 40; ++round) {
      std::vector<CopyLoop> loops;
      int64_t span = static_cast<int64_t>(item), dense = static_cast<int64_t>(item);
      for (size_t d = rng() % 4; d > 0; --d) {
        const auto count = static_cast<int64_t>(1 + rng() % 5);
        const int64_t src_stride = span + static_cast<int64_t>(rng() % 3 * item);
        loops.insert(loops.begin(), {count, src_stride, dense});
        span = src_stride * count;
        dense *= count;
      }
      std::vector<uint8_t> src(static_cast<size_t>(span)), dst(static_cast<size_t>(dense)), want(dst.size());
      for (auto& b : src) b = static_cast<uint8_t>(rng());
      copy_strided(dst.data(), src.data(), loops, item);
      for (size_t e = 0; e < dst.size() / item; ++e) {
        size_t rest = e, at = 0;
        for (size_t l = loops.size(); l-- > 0;) {
          at += rest % static_cast<size_t>(loops[l].count) * static_cast<size_t>(loops[l].src_stride);
          rest /= static_cast<size_t>(loops[l].count);
        }
        std::memcpy(want.data() + e * item, src.data() + at, item);
      }
      REQUIRE(dst == want);
    }
  }
}

TEST_CASE("byte order, conjugation and negation") {
  std::vector<uint8_t> words = {1, 2, 3, 4, 5, 6, 7, 8};
  apply_flags(words.data(), 2, DType::kI32, kByteSwapped);
  CHECK(words == std::vector<uint8_t>{4, 3, 2, 1, 8, 7, 6, 5});
  std::vector<float> complex = {1, 2, 3, -4};
  apply_flags(reinterpret_cast<uint8_t*>(complex.data()), 2, DType::kC64, kConjugated);
  CHECK(complex == std::vector<float>{1, -2, 3, 4});
  apply_flags(reinterpret_cast<uint8_t*>(complex.data()), 2, DType::kC64, kNegated);
  CHECK(complex == std::vector<float>{-1, 2, -3, -4});
  std::vector<int16_t> ints = {5, -7, INT16_MIN};
  apply_flags(reinterpret_cast<uint8_t*>(ints.data()), 3, DType::kI16, kNegated);
  CHECK(ints == std::vector<int16_t>{-5, 7, INT16_MIN});
}
