#include "lib/kernels/cast.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lib/base/bytes.h"

namespace uckpt::kernels {
namespace {

constexpr DType kTypes[] = {DType::kF64,  DType::kF32,    DType::kF16,
                            DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};

// The textbook's reading of a float of a few bits.
struct Format {
  DType dtype;
  int bits, mantissa, bias;
  bool infinite;  // all ones in the exponent are infinity and NaNs; else only all ones is NaN
};
constexpr Format kFormats[] = {{DType::kF16, 16, 10, 15, true},
                               {DType::kBF16, 16, 7, 127, true},
                               {DType::kF8E4M3, 8, 3, 7, false},
                               {DType::kF8E5M2, 8, 2, 15, true}};

double value_of(const Format& f, uint32_t code) {
  const uint32_t magnitude = code & ((1u << (f.bits - 1)) - 1);
  const int exponent = static_cast<int>(magnitude >> f.mantissa), top = (1 << (f.bits - 1 - f.mantissa)) - 1;
  const uint32_t fraction = magnitude & ((1u << f.mantissa) - 1);
  double value = 0;
  if (f.infinite && exponent == top) {
    value = fraction == 0 ? HUGE_VAL : std::nan("");
  } else if (!f.infinite && magnitude == (1u << (f.bits - 1)) - 1) {
    value = std::nan("");
  } else {
    value = exponent == 0 ? std::ldexp(fraction, 1 - f.bias - f.mantissa)
                          : std::ldexp(fraction + (1u << f.mantissa), exponent - f.bias - f.mantissa);
  }
  return std::copysign(value, magnitude == code ? 1.0 : -1.0);
}

// The magnitudes of a format in order, from zero to the largest number.
std::vector<double> magnitudes(const Format& f) {
  std::vector<double> out;
  for (uint32_t code = 0; std::isfinite(value_of(f, code)); ++code) out.push_back(value_of(f, code));
  return out;
}

// The nearest code by search: of two as near, the even one; past the middle between the largest number and
// the one that would follow, infinity, or the largest where there is none. `all` is `magnitudes(f)`.
uint32_t nearest(const Format& f, const std::vector<double>& all, double x) {
  const uint32_t sign = std::signbit(x) ? 1u << (f.bits - 1) : 0;
  const double m = std::abs(x);
  const auto last = static_cast<uint32_t>(all.size() - 1);
  const double following = all[last] + (all[last] - all[last - 1]);
  const auto above = static_cast<uint32_t>(std::lower_bound(all.begin(), all.end(), m) - all.begin());
  if (above > last) {
    if (!f.infinite) return sign | last;
    return sign | (m - all[last] < following - m ? last : last + 1);
  }
  if (above == 0 || all[above] == m) return sign | above;
  const double down = m - all[above - 1], up = all[above] - m;
  return sign | (down < up || (down == up && above % 2 == 1) ? above - 1 : above);
}

template <class T>
T cast_one(const void* src, DType from, DType to) {
  T out{};
  REQUIRE(item_size(to) == static_cast<int>(sizeof out));
  cast(static_cast<const uint8_t*>(src), from, reinterpret_cast<uint8_t*>(&out), to, 1);
  return out;
}

// The code that `f` gives the number, of type `from`.
uint32_t code_of(const Format& f, const void* src, DType from) {
  return f.bits == 16 ? cast_one<uint16_t>(src, from, f.dtype) : cast_one<uint8_t>(src, from, f.dtype);
}

bool is_nan_code(const Format& f, uint32_t code) { return std::isnan(value_of(f, code)); }

TEST_CASE("cast: every number of a narrow type is exact in the wide ones") {
  for (const Format& f : kFormats) {
    int64_t wrong = 0;
    for (uint32_t code = 0; code < 1u << f.bits; ++code) {
      const double want = value_of(f, code);
      const auto narrow = static_cast<float>(cast_one<float>(&code, f.dtype, DType::kF32));
      const auto wide = cast_one<double>(&code, f.dtype, DType::kF64);
      wrong += std::isnan(want)
                   ? !std::isnan(narrow) || !std::isnan(wide)
                   : narrow != want || wide != want || std::signbit(narrow) != std::signbit(want);
      wrong += std::signbit(narrow) != std::signbit(wide);
    }
    CHECK_MESSAGE(wrong == 0, name_of(f.dtype));
  }
}

TEST_CASE("cast: every number of a narrow type to every other, against a search") {
  for (const Format& to : kFormats) {
    const std::vector<double> all = magnitudes(to);
    for (const Format& from : kFormats) {
      if (from.dtype == to.dtype) continue;
      int64_t wrong = 0;
      for (uint32_t code = 0; code < 1u << from.bits; ++code) {
        const double x = value_of(from, code);
        const uint32_t got = code_of(to, &code, from.dtype);
        const bool sign_kept = (got >> (to.bits - 1) != 0) == std::signbit(x);
        wrong += std::isnan(x) ? !is_nan_code(to, got) || !sign_kept : got != nearest(to, all, x);
      }
      CHECK_MESSAGE(wrong == 0, name_of(from.dtype), " to ", name_of(to.dtype));
    }
  }
}

// Every number of the narrow type, every middle of two, and what stands beside those in the wide type.
template <class Float>
void check_middles(DType wide) {
  for (const Format& f : kFormats) {
    const std::vector<double> all = magnitudes(f);
    int64_t wrong = 0;
    const auto check = [&](double exact) {
      const auto x = static_cast<Float>(exact);
      for (const Float near : {std::nextafter(x, Float{0}), x, std::nextafter(x, Float{HUGE_VALF})})
        for (const Float y : {near, -near}) wrong += code_of(f, &y, wide) != nearest(f, all, y);
    };
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      check(all[i]);
      check((all[i] + all[i + 1]) / 2);
    }
    check(all.back());
    check(all.back() + (all.back() - all[all.size() - 2]) / 2);
    check(std::numeric_limits<Float>::max());
    CHECK_MESSAGE(wrong == 0, name_of(wide), " to ", name_of(f.dtype));
    for (const Float special :
         {std::numeric_limits<Float>::infinity(), -std::numeric_limits<Float>::infinity()})
      CHECK(code_of(f, &special, wide) == nearest(f, all, special));
    const Float nan = std::numeric_limits<Float>::quiet_NaN();
    CHECK(is_nan_code(f, code_of(f, &nan, wide)));
  }
}

TEST_CASE("cast: from f32 and f64, at and beside every number and every middle") {
  check_middles<float>(DType::kF32);
  check_middles<double>(DType::kF64);
}

TEST_CASE("cast: any bits of f32 and f64, against a search") {
  std::mt19937_64 random(4);
  for (const Format& f : kFormats) {
    const std::vector<double> all = magnitudes(f);
    int64_t wrong = 0;
    for (int i = 0; i < 50'000; ++i) {
      const auto single = std::bit_cast<float>(static_cast<uint32_t>(random()));
      const auto wide = std::bit_cast<double>(random());
      const uint32_t a = code_of(f, &single, DType::kF32), b = code_of(f, &wide, DType::kF64);
      wrong += std::isnan(single) ? !is_nan_code(f, a) : a != nearest(f, all, single);
      wrong += std::isnan(wide) ? !is_nan_code(f, b) : b != nearest(f, all, wide);
    }
    CHECK_MESSAGE(wrong == 0, name_of(f.dtype));
  }
}

TEST_CASE("cast: f64 is rounded once") {
  // Half a step of the narrow type and a little that f32 loses.
  const double bf16 = 1 + 0x1p-8 + 0x1p-40, f16 = 1 + 0x1p-11 + 0x1p-40, e4m3 = 1 + 0x1p-4 + 0x1p-40;
  CHECK(cast_one<uint16_t>(&bf16, DType::kF64, DType::kBF16) == 0x3f81);
  CHECK(cast_one<uint16_t>(&f16, DType::kF64, DType::kF16) == 0x3c01);
  CHECK(cast_one<uint8_t>(&e4m3, DType::kF64, DType::kF8E4M3) == 0x39);
  const double large = 0x1.ffffffp127, tiny = 0x1p-150;
  CHECK(cast_one<float>(&large, DType::kF64, DType::kF32) == HUGE_VALF);
  CHECK(cast_one<float>(&tiny, DType::kF64, DType::kF32) == 0);
}

TEST_CASE("cast: as torch 2.13.0 does") {
  // `torch.tensor([x]).to(dtype).view(torch.uint8)`, computed with torch 2.13.0.
  struct Row {
    float x;
    uint16_t f16, bf16;
    uint8_t e4m3, e5m2;
  };
  const float inf = HUGE_VALF, nan = std::nanf("");
  const Row rows[] = {
      {0x0.0p+0F, 0x0000, 0x0000, 0x00, 0x00},
      {-0x0.0p+0F, 0x8000, 0x8000, 0x80, 0x80},
      {0x1p+0F, 0x3c00, 0x3f80, 0x38, 0x3c},
      {-0x1.8000000000000p+0F, 0xbe00, 0xbfc0, 0xbc, 0xbe},
      {0x1.99999a0000000p-4F, 0x2e66, 0x3dcd, 0x1d, 0x2e},
      {0x1.921fb60000000p+1F, 0x4248, 0x4049, 0x45, 0x42},
      {0x1.c000000000000p+8F, 0x5f00, 0x43e0, 0x7e, 0x5f},
      {0x1.d000000000000p+8F, 0x5f40, 0x43e8, 0x7e, 0x5f},
      {0x1.e000000000000p+8F, 0x5f80, 0x43f0, 0x7e, 0x60},
      {-0x1.f400000000000p+8F, 0xdfd0, 0xc3fa, 0xfe, 0xe0},
      {0x1.c000000000000p+15F, 0x7b00, 0x4760, 0x7e, 0x7b},
      {0x1.e000000000000p+15F, 0x7b80, 0x4770, 0x7e, 0x7c},
      {0x1.ffc0000000000p+15F, 0x7bff, 0x4780, 0x7e, 0x7c},
      {0x1.ffde000000000p+15F, 0x7bff, 0x4780, 0x7e, 0x7c},
      {0x1.ffe0000000000p+15F, 0x7c00, 0x4780, 0x7e, 0x7c},
      {0x1.dcd6500000000p+29F, 0x7c00, 0x4e6e, 0x7e, 0x7c},
      {-0x1.c363cc0000000p+127F, 0xfc00, 0xff62, 0xfe, 0xfc},
      {0x1p-9F, 0x1800, 0x3b00, 0x01, 0x18},
      {0x1p-10F, 0x1400, 0x3a80, 0x00, 0x14},
      {0x1.0000020000000p-10F, 0x1400, 0x3a80, 0x01, 0x14},
      {0x1p-16F, 0x0100, 0x3780, 0x00, 0x01},
      {0x1p-17F, 0x0080, 0x3700, 0x00, 0x00},
      {0x1.01b2b20000000p-24F, 0x0001, 0x3381, 0x00, 0x00},
      {0x1p-149F, 0x0000, 0x0000, 0x00, 0x00},
      {inf, 0x7c00, 0x7f80, 0x7e, 0x7c},
      {-inf, 0xfc00, 0xff80, 0xfe, 0xfc},
      {nan, 0x7e00, 0xffff, 0x7f, 0x7f},
  };
  for (const Row& r : rows) {
    CHECK(cast_one<uint16_t>(&r.x, DType::kF32, DType::kF16) == r.f16);
    if (!std::isnan(r.x)) CHECK(cast_one<uint16_t>(&r.x, DType::kF32, DType::kBF16) == r.bf16);
    CHECK(cast_one<uint8_t>(&r.x, DType::kF32, DType::kF8E4M3) == r.e4m3);
    CHECK(cast_one<uint8_t>(&r.x, DType::kF32, DType::kF8E5M2) == r.e5m2);
  }
}

TEST_CASE("cast: many elements at once are what each is alone, at any address") {
  std::mt19937_64 random(5);
  for (const DType from : kTypes) {
    for (const DType to : kTypes) {
      CHECK(can_cast(from, to));
      for (const int64_t count : {0, 1, 63, 64, 65, 200}) {
        const auto a = static_cast<size_t>(item_size(from)), b = static_cast<size_t>(item_size(to));
        Bytes src(static_cast<size_t>(count) * a + 1), dst(static_cast<size_t>(count) * b + 2, 0xa5);
        for (uint8_t& byte : src) byte = static_cast<uint8_t>(random());
        cast(src.data() + 1, from, dst.data() + 1, to, count);
        Bytes want(dst.size(), 0xa5);
        for (size_t i = 0; i < static_cast<size_t>(count); ++i)
          cast(src.data() + 1 + i * a, from, want.data() + 1 + i * b, to, 1);
        CHECK(dst == want);
      }
    }
  }
  CHECK_FALSE(can_cast(DType::kF32, DType::kI32));
  CHECK_FALSE(can_cast(DType::kBool, DType::kF32));
  CHECK_FALSE(can_cast(DType::kF32, DType::kF8E4M3Fnuz));
  CHECK_FALSE(can_cast(DType::kF4, DType::kF32));
}

}  // namespace
}  // namespace uckpt::kernels
