#include "lib/kernels/numbers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/kernels/floats.h"

namespace uckpt::kernels {

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

// By blocks of a fixed length between arrays that are known not to overlap, so that the compiler vectorises.
template <class Stored, class Widen>
void each(const uint8_t* src, int64_t count, double* out, const Widen& widen_one) {
  constexpr int64_t kBlock = 64;
  Stored from[kBlock] = {};
  double to[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const auto n = static_cast<size_t>(std::min(kBlock, count - i));
    std::memcpy(from, src + i * static_cast<int64_t>(sizeof(Stored)), n * sizeof(Stored));
    for (int64_t k = 0; k < kBlock; ++k) to[k] = static_cast<double>(widen_one(from[k]));
    std::memcpy(out + i, to, n * sizeof to[0]);
  }
}
template <class Format>
void each_float(const uint8_t* src, int64_t count, double* out) {
  each<typename Format::Stored>(src, count, out, [](typename Format::Stored x) { return widen<Format>(x); });
}
template <class Number>
void each_plain(const uint8_t* src, int64_t count, double* out) {
  each<Number>(src, count, out, [](Number x) { return x; });
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
  switch (dtype) {
    case DType::kBool:
      return each<uint8_t>(src, count, out, [](uint8_t x) { return x != 0; });
    case DType::kU8:
      return each_plain<uint8_t>(src, count, out);
    case DType::kI8:
      return each_plain<int8_t>(src, count, out);
    case DType::kU16:
      return each_plain<uint16_t>(src, count, out);
    case DType::kI16:
      return each_plain<int16_t>(src, count, out);
    case DType::kU32:
      return each_plain<uint32_t>(src, count, out);
    case DType::kI32:
      return each_plain<int32_t>(src, count, out);
    case DType::kU64:
      return each_plain<uint64_t>(src, count, out);
    case DType::kI64:
      return each_plain<int64_t>(src, count, out);
    case DType::kF16:
      return each_float<Half>(src, count, out);
    case DType::kBF16:
      return each_float<BFloat>(src, count, out);
    case DType::kF32:
      return each_plain<float>(src, count, out);
    case DType::kF64:
      return each_plain<double>(src, count, out);
    case DType::kF8E4M3:
      return each_float<E4M3>(src, count, out);
    case DType::kF8E5M2:
      return each_float<E5M2>(src, count, out);
    case DType::kF8E4M3Fnuz:
      return each_listed(src, count, out, kE4M3Fnuz);
    case DType::kF8E5M2Fnuz:
      return each_listed(src, count, out, kE5M2Fnuz);
    case DType::kF8E8M0:
      return each_listed(src, count, out, kE8M0);
    case DType::kC32:
    case DType::kC64:
    case DType::kC128:
    case DType::kF4:
    case DType::kF6E2M3:
    case DType::kF6E3M2:
      break;  // the caller's mistake: nothing is written
  }
}

}  // namespace uckpt::kernels
