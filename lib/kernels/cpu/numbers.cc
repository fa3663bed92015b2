#include "lib/kernels/numbers.h"

#include <array>
#include <cmath>
#include <limits>

#include "lib/base/bytes.h"
#include "lib/kernels/cast.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/numbers.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/floats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

template <class Integer, class Widen>
HWY_INLINE void WidenIntegers(const uint8_t* src, int64_t count, double* out, const Widen& widen) {
  const Doubles d;
  const hn::Rebind<Integer, Doubles> integers;
  ByVectors<Integer, double>(src, reinterpret_cast<uint8_t*>(out), count, hn::Lanes(d),
                             [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
                               const auto x = hn::LoadU(integers, reinterpret_cast<const Integer*>(s));
                               hn::StoreU(widen(x), d, reinterpret_cast<double*>(t));
                             });
}

// Integers of up to 32 bits.
void IntegersToDoubles(const uint8_t* src, DType dtype, int64_t count, double* out) {
  const Doubles d;
  const hn::Rebind<int32_t, Doubles> words;
  const auto small = [&](auto x) HWY_ATTR { return hn::PromoteTo(d, hn::PromoteTo(words, x)); };
  switch (dtype) {
    case DType::kBool:
      return WidenIntegers<uint8_t>(src, count, out, [&](auto x) HWY_ATTR {
        return hn::PromoteTo(d, hn::Min(hn::PromoteTo(words, x), hn::Set(words, 1)));
      });
    case DType::kU8:
      return WidenIntegers<uint8_t>(src, count, out, small);
    case DType::kI8:
      return WidenIntegers<int8_t>(src, count, out, small);
    case DType::kU16:
      return WidenIntegers<uint16_t>(src, count, out, small);
    case DType::kI16:
      return WidenIntegers<int16_t>(src, count, out, small);
    case DType::kI32:
      return WidenIntegers<int32_t>(src, count, out, [&](auto x) HWY_ATTR { return hn::PromoteTo(d, x); });
    case DType::kU32:
      return WidenIntegers<uint32_t>(src, count, out, [&](auto x) HWY_ATTR {  // as the lower bits of 2^52 + x
        const LongWords longs;
        const auto power = hn::Set(longs, uint64_t{0x433} << 52);
        return hn::Sub(hn::BitCast(d, hn::Or(power, hn::PromoteTo(longs, x))), hn::BitCast(d, power));
      });
    default:
      return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(IntegersToDoubles);

namespace {

using Table = std::array<double, 256>;

// The "fnuz" kinds: no infinities, no negative zero, whose place is the only NaN.
Table fnuz_table(int mantissa, int bias) {
  Table out{};
  const unsigned ones = (1u << mantissa) - 1;
  for (unsigned bits = 0; bits < 256; ++bits) {
    const int e = static_cast<int>((bits & 0x7f) >> mantissa), m = static_cast<int>(bits & ones);
    const double magnitude = std::ldexp(e == 0 ? m : m + (1 << mantissa), (e == 0 ? 1 : e) - bias - mantissa);
    out[bits] = bits & 0x80 ? -magnitude : magnitude;
  }
  out[0x80] = std::numeric_limits<double>::quiet_NaN();
  return out;
}

Table powers_table() {  // e8m0: exponents alone
  Table out{};
  for (int bits = 0; bits < 255; ++bits) out[static_cast<size_t>(bits)] = std::ldexp(1.0, bits - 127);
  out[255] = std::numeric_limits<double>::quiet_NaN();
  return out;
}

const Table kE4M3Fnuz = fnuz_table(3, 8), kE5M2Fnuz = fnuz_table(2, 16), kE8M0 = powers_table();

template <class Number>
void each_plain(const uint8_t* src, int64_t count, double* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = static_cast<double>(load_le<Number>(src + i * static_cast<int64_t>(sizeof(Number))));
}
void each_listed(const uint8_t* src, int64_t count, double* out, const Table& table) {
  for (int64_t i = 0; i < count; ++i) out[i] = table[src[i]];
}

}  // namespace

bool has_numbers(DType dtype) { return item_size(dtype) > 0; }

bool fits_double(DType dtype) {
  return has_numbers(dtype) && dtype != DType::kI64 && dtype != DType::kU64 &&
         info(dtype).kind != DTypeClass::kComplex;
}

DType part_of(DType dtype) {
  switch (dtype) {
    case DType::kC32:
      return DType::kF16;
    case DType::kC64:
      return DType::kF32;
    case DType::kC128:
      return DType::kF64;
    default:
      return dtype;
  }
}

double least_normal(DType dtype) {
  switch (part_of(dtype)) {
    case DType::kF64:
      return std::numeric_limits<double>::min();
    case DType::kF32:
    case DType::kBF16:
      return static_cast<double>(std::numeric_limits<float>::min());
    case DType::kF16:
    case DType::kF8E5M2:
      return 0x1p-14;
    case DType::kF8E4M3:
      return 0x1p-6;
    case DType::kF8E4M3Fnuz:
      return 0x1p-7;
    case DType::kF8E5M2Fnuz:
      return 0x1p-15;
    default:
      return 0;
  }
}

void to_doubles(const uint8_t* src, DType dtype, int64_t count, double* out) {
  if (can_cast(dtype, DType::kF64))
    return cast(src, dtype, reinterpret_cast<uint8_t*>(out), DType::kF64, count);
  switch (dtype) {
    case DType::kU64:
      return each_plain<uint64_t>(src, count, out);
    case DType::kI64:
      return each_plain<int64_t>(src, count, out);
    case DType::kF8E4M3Fnuz:
      return each_listed(src, count, out, kE4M3Fnuz);
    case DType::kF8E5M2Fnuz:
      return each_listed(src, count, out, kE5M2Fnuz);
    case DType::kF8E8M0:
      return each_listed(src, count, out, kE8M0);
    default:  // pairs and types under a byte are the caller's mistake: nothing is written
      return HWY_DYNAMIC_DISPATCH(IntegersToDoubles)(src, dtype, count, out);
  }
}

}  // namespace uckpt::kernels
#endif
