// Float formats narrower than the machine's: their bits to float and back, branch-free, so that the compiler
// can vectorise the loops that call them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace uckpt::kernels {

// A format of `kBits` bits: sign, exponent, then `kMantissa` bits. Magnitudes from `kFirstSpecial` on are no
// numbers; `kTop` is what too large a one becomes: infinity, or the largest number where there is none.
template <class Stored_, int kMantissa_, int kBias_, uint32_t kTop_, uint32_t kFirstSpecial_, uint32_t kNaN_>
struct FloatFormat {
  using Stored = Stored_;
  static constexpr int kBits = sizeof(Stored) * 8, kMantissa = kMantissa_, kBias = kBias_;
  static constexpr uint32_t kTop = kTop_, kFirstSpecial = kFirstSpecial_, kNaN = kNaN_;
  static constexpr uint32_t kSign = uint32_t{1} << (kBits - 1);
};
using Half = FloatFormat<uint16_t, 10, 15, 0x7c00, 0x7c00, 0x7e00>;
using BFloat = FloatFormat<uint16_t, 7, 127, 0x7f80, 0x7f80, 0x7fc0>;
using E4M3 = FloatFormat<uint8_t, 3, 7, 0x7e, 0x7f, 0x7f>;  // the "fn" kind
using E5M2 = FloatFormat<uint8_t, 2, 15, 0x7c, 0x7c, 0x7f>;

// Compilers do not turn `?:` between floats into masks, since floats may trap.
template <class Word>
constexpr Word mask_if(bool condition) {
  return Word{0} - static_cast<Word>(condition);
}

// Exact. The payload of a NaN is kept as the upper bits.
template <class Format>
constexpr float widen(typename Format::Stored x) {
  constexpr int kShift = 23 - Format::kMantissa;
  const uint32_t sign = (x & Format::kSign) << (32 - Format::kBits), magnitude = x & (Format::kSign - 1);
  const uint32_t bits = magnitude << kShift;
  if constexpr (Format::kBias == 127) return std::bit_cast<float>(sign | bits);
  // Multiplying by a power of two moves the exponent, and makes subnormals normal.
  constexpr auto kRebias = std::bit_cast<float>(static_cast<uint32_t>(254 - Format::kBias) << 23);
  const auto number = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) * kRebias);
  return std::bit_cast<float>(sign | number |
                              (mask_if<uint32_t>(magnitude >= Format::kFirstSpecial) & 0x7f800000u));
}

// Rounds to the nearest, ties to even, once. NaNs stay NaNs and keep their sign.
template <class Format, class Float>
constexpr typename Format::Stored narrow(Float x) {
  using Word = std::conditional_t<sizeof(Float) == 8, uint64_t, uint32_t>;
  constexpr int kMantissa = std::numeric_limits<Float>::digits - 1,
                kBias = std::numeric_limits<Float>::max_exponent - 1, kDrop = kMantissa - Format::kMantissa;
  constexpr int kWordBits = sizeof(Word) * 8;
  constexpr Word kInfinity = static_cast<Word>(2 * kBias + 1) << kMantissa;
  const auto word = std::bit_cast<Word>(x);
  const Word magnitude = word & (~Word{0} >> 1);
  const auto sign = static_cast<uint32_t>(word >> (kWordBits - Format::kBits)) & Format::kSign;
  // Normal results: rebias the exponent, round the bits that go. What is too large comes out above `kTop`.
  constexpr Word kRebias = static_cast<Word>(kBias - Format::kBias) << kMantissa;
  const Word normal =
      (magnitude - kRebias + ((Word{1} << (kDrop - 1)) - 1) + ((magnitude >> kDrop) & 1)) >> kDrop;
  Word result = normal;
  if constexpr (kBias != Format::kBias) {
    // Subnormal results: adding a float whose last place is their step lets the adder align and round.
    constexpr Word kAligner = static_cast<Word>(kBias + 1 - Format::kBias + kDrop) << kMantissa;
    constexpr Word kFirstNormal = static_cast<Word>(kBias + 1 - Format::kBias) << kMantissa;
    const Word subnormal =
        std::bit_cast<Word>(std::bit_cast<Float>(magnitude) + std::bit_cast<Float>(kAligner)) - kAligner;
    const Word tiny = mask_if<Word>(magnitude < kFirstNormal);
    result = (subnormal & tiny) | (normal & ~tiny);
  }
  result = std::min<Word>(result, Format::kTop);
  result |= mask_if<Word>(magnitude > kInfinity) & Format::kNaN;  // has all bits of `kTop`
  return static_cast<typename Format::Stored>(sign | static_cast<uint32_t>(result));
}

}  // namespace uckpt::kernels
