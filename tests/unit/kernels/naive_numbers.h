// What the bits of an element stand for, by arithmetic on their fields: slow and obvious, for tests only.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/tensor/dtype.h"

namespace uckpt::kernels::testing {

inline bool near(double found, double want) {
  return found == want || std::fabs(found - want) <= 1e-12 * std::fabs(want);
}

struct NaiveFloat {
  int bits, exponent_bits, mantissa_bits, bias;
  enum { kIeee, kFn, kFnuz } specials;  // infinities and NaNs; NaN only at all ones; NaN only at -0
};

inline NaiveFloat fields_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return {64, 11, 52, 1023, NaiveFloat::kIeee};
    case DType::kF32:
      return {32, 8, 23, 127, NaiveFloat::kIeee};
    case DType::kF16:
      return {16, 5, 10, 15, NaiveFloat::kIeee};
    case DType::kBF16:
      return {16, 8, 7, 127, NaiveFloat::kIeee};
    case DType::kF8E4M3:
      return {8, 4, 3, 7, NaiveFloat::kFn};
    case DType::kF8E5M2:
      return {8, 5, 2, 15, NaiveFloat::kIeee};
    case DType::kF8E4M3Fnuz:
      return {8, 4, 3, 8, NaiveFloat::kFnuz};
    default:  // f8_e5m2fnuz
      return {8, 5, 2, 16, NaiveFloat::kFnuz};
  }
}

struct NaiveNumber {
  long double value;
  bool denormal = false;
};

inline NaiveNumber naive_float(uint64_t word, const NaiveFloat& f) {
  const uint64_t exponent = word >> f.mantissa_bits & ((uint64_t{1} << f.exponent_bits) - 1),
                 mantissa = word & ((uint64_t{1} << f.mantissa_bits) - 1);
  const bool negative = word >> (f.bits - 1) & 1, all_ones = exponent == (uint64_t{1} << f.exponent_bits) - 1;
  const long double sign = negative ? -1 : 1;
  if (f.specials == NaiveFloat::kFnuz && negative && exponent == 0 && mantissa == 0) return {NAN};
  if (f.specials == NaiveFloat::kFn && all_ones && mantissa == (uint64_t{1} << f.mantissa_bits) - 1)
    return {NAN};
  if (f.specials == NaiveFloat::kIeee && all_ones) return {mantissa != 0 ? NAN : sign * INFINITY};
  const auto m = static_cast<long double>(mantissa);
  if (exponent == 0) return {sign * std::ldexp(m, 1 - f.bias - f.mantissa_bits), mantissa != 0};
  return {sign * std::ldexp(m + std::ldexp(1.0L, f.mantissa_bits),
                            static_cast<int>(exponent) - f.bias - f.mantissa_bits)};
}

// The element at `p`; complex ones are two of these.
inline NaiveNumber naive_number(const uint8_t* p, DType dtype) {
  uint64_t word = 0;
  std::memcpy(&word, p, static_cast<size_t>(item_size(dtype)));
  const int unused = 64 - bits_of(dtype);
  switch (info(dtype).kind) {
    case DTypeClass::kTruth:
      return {word != 0 ? 1.0L : 0.0L};
    case DTypeClass::kUint:
      return {static_cast<long double>(word)};
    case DTypeClass::kInt:
      return {static_cast<long double>(static_cast<int64_t>(word << unused) >> unused)};
    default:
      if (dtype == DType::kF8E8M0)
        return {word == 255 ? NAN : std::ldexp(1.0L, static_cast<int>(word) - 127)};
      return naive_float(word, fields_of(dtype));
  }
}

inline std::vector<DType> types_with_numbers(bool complex) {
  std::vector<DType> out;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (item_size(dtype) > 0 && (complex || info(dtype).kind != DTypeClass::kComplex)) out.push_back(dtype);
  }
  return out;
}

// Random bits; of floats some are made zeros of both signs, infinities, NaNs and denormals.
inline Bytes random_elements(DType dtype, int64_t count, std::mt19937& rng, bool odd_ones) {
  Bytes out(static_cast<size_t>(count * item_size(dtype)));
  for (uint8_t& b : out) b = static_cast<uint8_t>(rng());
  const bool complex = info(dtype).kind == DTypeClass::kComplex;
  if (!odd_ones || (info(dtype).kind != DTypeClass::kFloat && !complex)) return out;
  const DType part = dtype == DType::kC32    ? DType::kF16
                     : dtype == DType::kC64  ? DType::kF32
                     : dtype == DType::kC128 ? DType::kF64
                                             : dtype;
  if (part == DType::kF8E8M0) return out;
  const NaiveFloat f = fields_of(part);
  const uint64_t ones = ((uint64_t{1} << f.exponent_bits) - 1) << f.mantissa_bits;
  const uint64_t sign = uint64_t{1} << (f.bits - 1);
  const uint64_t special[] = {0, sign, ones, ones | sign, ones | 1, ones | sign | 3, 1, sign | 3};
  const auto item = static_cast<size_t>(f.bits / 8);
  for (size_t at = 0; at < out.size(); at += item)
    if (rng() % 3 == 0) std::memcpy(out.data() + at, &special[rng() % 8], item);
  return out;
}

}  // namespace uckpt::kernels::testing
