// Vectors of floats to and from their narrow formats, with the bits of lib/kernels/floats.h. No instruction
// of the machine for 16-bit floats changes a NaN or a subnormal as that does: they are used only where it
// cannot be seen.

// Included once for each instruction set.
#if defined(UCKPT_KERNELS_FLOATS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef UCKPT_KERNELS_FLOATS_INL_H
#undef UCKPT_KERNELS_FLOATS_INL_H
#else
#define UCKPT_KERNELS_FLOATS_INL_H
#endif
#undef UCKPT_HALVES_BY_MACHINE

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lib/kernels/floats.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
// As many doubles as there are floats in half a vector.
using Doubles = hn::ScalableTag<double>;
using LongWords = hn::RebindToUnsigned<Doubles>;
using HalfFloats = hn::Rebind<float, Doubles>;

// Of codes in the lower bits of words.
template <class Format, class D>
HWY_INLINE hn::Vec<hn::RebindToFloat<D>> Widen(D d, hn::Vec<D> code) {
  const hn::RebindToFloat<D> df;
  constexpr int kShift = 23 - Format::kMantissa;
  constexpr uint32_t kRebias = static_cast<uint32_t>(127 - Format::kBias) << 23;
  if constexpr (Format::kBias == 127) return hn::BitCast(df, hn::ShiftLeft<kShift>(code));
  const auto magnitude = hn::And(code, hn::Set(d, Format::kSign - 1));
  const auto sign = hn::ShiftLeft<32 - Format::kBits>(hn::AndNot(hn::Set(d, Format::kSign - 1), code));
  const auto normal = hn::Add(hn::ShiftLeft<kShift>(magnitude), hn::Set(d, kRebias));
  // A subnormal is the mantissa of a number that has the least exponent, less that number's leading one.
  const auto one = hn::Set(d, kRebias + (1u << 23));
  const auto with_one = hn::Add(hn::ShiftLeft<kShift>(magnitude), one);
  const auto subnormal = hn::BitCast(d, hn::Sub(hn::BitCast(df, with_one), hn::BitCast(df, one)));
  const hn::RebindToSigned<D> di;
  const auto less = [&](auto x, uint32_t limit) HWY_ATTR {
    return hn::VecFromMask(
        d, hn::RebindMask(d, hn::Lt(hn::BitCast(di, x), hn::Set(di, static_cast<int32_t>(limit)))));
  };
  const auto number = hn::IfVecThenElse(less(magnitude, 1u << Format::kMantissa), subnormal, normal);
  const auto special = hn::AndNot(less(magnitude, Format::kFirstSpecial), hn::Set(d, 0x7f800000u));
  return hn::BitCast(df, hn::Or(hn::Or(number, special), sign));
}

// Codes in the lower bits of words as wide as the floats, which are of 32 or 64 bits.
template <class Format, class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Narrow(D df, hn::Vec<D> x) {
  using Float = hn::TFromD<D>;
  const hn::RebindToUnsigned<D> d;
  const hn::RebindToSigned<D> di;
  using Word = hn::TFromD<decltype(d)>;
  constexpr int kMantissa = std::numeric_limits<Float>::digits - 1,
                kBias = std::numeric_limits<Float>::max_exponent - 1, kDrop = kMantissa - Format::kMantissa,
                kWordBits = sizeof(Word) * 8;
  constexpr Word kInfinity = static_cast<Word>(2 * kBias + 1) << kMantissa;
  const auto less = [&](auto a, Word limit) HWY_ATTR {  // both without sign
    using Signed = hn::TFromD<decltype(di)>;
    return hn::RebindMask(d, hn::Lt(hn::BitCast(di, a), hn::Set(di, static_cast<Signed>(limit))));
  };
  const auto word = hn::BitCast(d, x);
  if constexpr (kBias ==
                Format::kBias) {  // the sign may stay where it is, since no carry reaches it but a NaN's
    const auto odd = hn::And(hn::ShiftRight<kDrop>(word), hn::Set(d, Word{1}));
    const auto rounded = hn::Add(word, hn::Add(odd, hn::Set(d, (Word{1} << (kDrop - 1)) - 1)));
    const auto nan = hn::Or(hn::And(word, hn::Set(d, Word{Format::kSign} << kDrop)),
                            hn::Set(d, Word{Format::kNaN} << kDrop));
    return hn::ShiftRight<kDrop>(hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(x)), nan, rounded));
  }
  const auto magnitude = hn::And(word, hn::Set(d, ~Word{0} >> 1));
  const auto sign = hn::And(hn::ShiftRight<kWordBits - Format::kBits>(word), hn::Set(d, Word{Format::kSign}));
  constexpr Word kRebias = static_cast<Word>(kBias - Format::kBias) << kMantissa;
  const auto odd = hn::And(hn::ShiftRight<kDrop>(magnitude), hn::Set(d, Word{1}));
  const auto rounded = hn::Add(hn::Add(magnitude, odd),
                               hn::Set(d, static_cast<Word>(((Word{1} << (kDrop - 1)) - 1) - kRebias)));
  auto result = hn::ShiftRight<kDrop>(rounded);
  if constexpr (sizeof(Word) == 4)
    result = hn::BitCast(d, hn::Min(hn::BitCast(di, result), hn::Set(di, int32_t{Format::kTop})));
  else
    result = hn::IfThenElse(less(result, Format::kTop), result, hn::Set(d, Word{Format::kTop}));
  constexpr Word kAligner = static_cast<Word>(kBias + 1 - Format::kBias + kDrop) << kMantissa;
  constexpr Word kFirstNormal = static_cast<Word>(kBias + 1 - Format::kBias) << kMantissa;
  const auto aligner = hn::Set(d, kAligner);
  const auto sum = hn::Add(hn::BitCast(df, magnitude), hn::BitCast(df, aligner));
  const auto subnormal = hn::Sub(hn::BitCast(d, sum), aligner);
  result = hn::IfThenElse(less(magnitude, kFirstNormal), subnormal, result);
  const auto number = hn::VecFromMask(d, less(magnitude, kInfinity + 1));
  return hn::Or(sign, hn::Or(result, hn::AndNot(number, hn::Set(d, Word{Format::kNaN}))));
}

// The lower bits of words, stored.
template <class Stored, class D>
HWY_INLINE void StoreCodes(D, hn::Vec<D> words, uint8_t* to) {
  const hn::Rebind<Stored, D> narrow;
  hn::StoreU(hn::TruncateTo(narrow, words), narrow, reinterpret_cast<Stored*>(to));
}
template <class Stored, class D>
HWY_INLINE hn::Vec<D> LoadCodes(D d, const uint8_t* from) {
  const hn::Rebind<Stored, D> narrow;
  return hn::PromoteTo(d, hn::LoadU(narrow, reinterpret_cast<const Stored*>(from)));
}

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
#define UCKPT_HALVES_BY_MACHINE 1
#else
#define UCKPT_HALVES_BY_MACHINE 0
#endif

// How each type is read and written as floats; by `LoadNumber` where the payload of a NaN will not be seen.
template <class Format>
struct Coded {
  using Stored = typename Format::Stored;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D, const uint8_t* p) {
    const hn::RebindToUnsigned<D> words;
    return Widen<Format>(words, LoadCodes<Stored>(words, p));
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> LoadNumber(D d, const uint8_t* p) {
#if UCKPT_HALVES_BY_MACHINE
    if constexpr (std::is_same_v<Format, Half>)
      return hn::PromoteTo(
          d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), reinterpret_cast<const hwy::float16_t*>(p)));
#endif
    return Load(d, p);
  }
  template <class D>
  static HWY_INLINE void Store([[maybe_unused]] D d, hn::Vec<D> x, uint8_t* p) {
#if UCKPT_HALVES_BY_MACHINE
    if constexpr (std::is_same_v<Format, Half> && std::is_same_v<hn::TFromD<D>, float>) {
      const hn::Rebind<hwy::float16_t, D> halves;  // of a NaN the sign and a payload of one bit are left
      const hn::RebindToUnsigned<D> words;
      const auto sign = hn::And(x, hn::BitCast(d, hn::Set(words, 0x80000000u)));
      const auto nan = hn::Or(sign, hn::BitCast(d, hn::Set(words, 0x7fc00000u)));
      hn::StoreU(hn::DemoteTo(halves, hn::IfThenElse(hn::IsNaN(x), nan, x)), halves,
                 reinterpret_cast<hwy::float16_t*>(p));
      return;
    }
#endif
    StoreCodes<Stored>(hn::RebindToUnsigned<D>(), Narrow<Format>(d, x), p);
  }
};
struct Single {
  using Stored = float;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint8_t* p) {
    return hn::LoadU(d, reinterpret_cast<const float*>(p));
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> LoadNumber(D d, const uint8_t* p) {
    return Load(d, p);
  }
  template <class D>
  static HWY_INLINE void Store([[maybe_unused]] D d, hn::Vec<D> x, uint8_t* p) {
    if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
#if HWY_TARGET == HWY_SCALAR || \
    HWY_TARGET == HWY_EMU128  // whose DemoteTo gives the largest number for infinity
      constexpr size_t n = hn::MaxLanes(D());
      HWY_ALIGN double wide[n];
      float narrow[n];
      hn::Store(x, d, wide);
      for (size_t i = 0; i < n; ++i) narrow[i] = static_cast<float>(wide[i]);
      std::memcpy(p, narrow, sizeof narrow);
#else
      const hn::Rebind<float, D> narrow;
      hn::StoreU(hn::DemoteTo(narrow, x), narrow, reinterpret_cast<float*>(p));
#endif
    } else {
      hn::StoreU(x, d, reinterpret_cast<float*>(p));
    }
  }
};
struct Double {
  using Stored = double;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const uint8_t* p) {
    return hn::LoadU(d, reinterpret_cast<const double*>(p));
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> LoadNumber(D d, const uint8_t* p) {
    return Load(d, p);
  }
  template <class D>
  static HWY_INLINE void Store(D d, hn::Vec<D> x, uint8_t* p) {
    hn::StoreU(x, d, reinterpret_cast<double*>(p));
  }
};

// Calls step(src, dst) for every `lanes` elements, the last ones from and into buffers.
template <class In, class Out, class Step>
HWY_INLINE void ByVectors(const uint8_t* src, uint8_t* dst, int64_t count, size_t lanes, const Step& step) {
  constexpr auto in = static_cast<int64_t>(sizeof(In)), out = static_cast<int64_t>(sizeof(Out));
  const auto n = static_cast<int64_t>(lanes);
  int64_t i = 0;
  for (; i + n <= count; i += n) step(src + i * in, dst + i * out);
  if (i >= count) return;
  constexpr size_t kMost = hn::MaxLanes(hn::ScalableTag<uint8_t>());
  HWY_ALIGN uint8_t from[kMost * sizeof(In)] = {};
  HWY_ALIGN uint8_t to[kMost * sizeof(Out)];
  const size_t rest = std::min(kMost, static_cast<size_t>(count - i));
  std::memcpy(from, src + i * in, rest * sizeof(In));
  step(from, to);
  std::memcpy(dst + i * out, to, rest * sizeof(Out));
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#endif
