// Floats to and from their narrow formats, and arithmetic on them, with the bits of the host: of
// lib/kernels/floats.h, and of NaNs as the x86 makes them. A device's own conversions round alike, but every
// NaN becomes one and the same: they are used with that set right.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "lib/kernels/cuda/anywhere.h"
#include "lib/kernels/floats.h"

namespace uckpt::kernels::cuda {

UCKPT_ANYWHERE uint32_t bits_of_float(float x) { return std::bit_cast<uint32_t>(x); }
UCKPT_ANYWHERE uint64_t bits_of_double(double x) { return std::bit_cast<uint64_t>(x); }

template <class Format>
UCKPT_ANYWHERE float widened(typename Format::Stored x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Format, Half>) {
    const uint32_t magnitude = x & 0x7fffu;
    if (magnitude > Half::kTop)
      return std::bit_cast<float>((x & 0x8000u) << 16 | magnitude << 13 | 0x7f800000u);
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x));
    return out;
  }
#endif
  return widen<Format>(x);
}

template <class Format>
UCKPT_ANYWHERE typename Format::Stored narrowed(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Format, Half> || std::is_same_v<Format, BFloat>) {
    uint16_t out;
    if constexpr (std::is_same_v<Format, Half>)
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    else
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
    const auto nan = static_cast<uint16_t>((bits_of_float(x) >> 16 & 0x8000u) | Format::kNaN);
    return x != x ? nan : out;
  }
#if __CUDA_ARCH__ >= 890
  if constexpr (sizeof(typename Format::Stored) == 1) {
    uint16_t pair;
    if constexpr (std::is_same_v<Format, E4M3>)
      asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
    else
      asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(x));
    const uint32_t sign = bits_of_float(x) >> 24 & 0x80u;
    uint32_t out = pair & 0xffu;
    // The middle of the largest number and what would follow it is rounded to infinity.
    if constexpr (std::is_same_v<Format, E5M2>) out = fabsf(x) >= 61440.0f ? sign | E5M2::kTop : out;
    return static_cast<uint8_t>(x != x ? sign | Format::kNaN : out);
  }
#endif
#endif
  return narrow<Format>(x);
}

// A NaN's payload moves with it, and is made a quiet one.
UCKPT_ANYWHERE double to_double(float x) {
  if (x == x) return static_cast<double>(x);
  const uint64_t bits = bits_of_float(x);
  return std::bit_cast<double>((bits >> 31) << 63 | 0x7ff8000000000000u | (bits & 0x7fffffu) << 29);
}
UCKPT_ANYWHERE float to_float(double x) {
  if (x == x) return static_cast<float>(x);
  const uint64_t bits = bits_of_double(x);
  return std::bit_cast<float>(
      static_cast<uint32_t>((bits >> 63) << 31 | 0x7fc00000u | (bits >> 29 & 0x3fffffu)));
}

// What an operation on two numbers gave; a NaN is that of the first operand that is one, made quiet, or else
// the negative one.
template <class Float>
UCKPT_ANYWHERE Float settled(Float result, Float a, Float b) {
  if (result == result) return result;
  using W = std::conditional_t<sizeof(Float) == 8, uint64_t, uint32_t>;
  constexpr int kMantissa = sizeof(Float) == 8 ? 52 : 23;
  constexpr W kQuiet = W{1} << (kMantissa - 1), kNone = ~W{0} << (kMantissa - 1);
  return std::bit_cast<Float>(a != a   ? std::bit_cast<W>(a) | kQuiet
                              : b != b ? std::bit_cast<W>(b) | kQuiet
                                       : kNone);
}

}  // namespace uckpt::kernels::cuda
