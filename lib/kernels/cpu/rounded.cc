// Comparison with a rounded copy: how many differ is counted by vectors, and only then is the first one
// looked for.
#include <algorithm>
#include <cstring>

#include "lib/kernels/cpu/counts.h"
#include "lib/kernels/elements.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/rounded.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/floats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

// Counts the lanes for which differ(a, b) gives all ones; the last ones by buffers of equals.
template <class A, class B, class D, class Differ>
HWY_INLINE int64_t CountLanes(D d, const uint8_t* a, const uint8_t* b, int64_t count, const Differ& differ) {
  constexpr auto a_item = static_cast<int64_t>(sizeof(A)), b_item = static_cast<int64_t>(sizeof(B));
  using Word = hn::TFromD<D>;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kBlock = 128;  // no lane of 8 bits counts further than it can
  int64_t different = 0, i = 0;
  while (i + n <= count) {
    auto lanes = hn::Zero(d);
    const int64_t end = std::min(count - n, i + (kBlock - 1) * n);
    for (; i <= end; i += n) lanes = hn::Sub(lanes, differ(a + i * a_item, b + i * b_item));
    HWY_ALIGN Word sums[hn::MaxLanes(D())];
    hn::Store(lanes, d, sums);
    for (int64_t k = 0; k < n; ++k) different += static_cast<int64_t>(sums[k]);
  }
  if (i >= count) return different;
  HWY_ALIGN uint8_t x[hn::MaxLanes(D()) * sizeof(A)] = {}, y[hn::MaxLanes(D()) * sizeof(B)] = {};
  std::memcpy(x, a + i * a_item, std::min(sizeof x, static_cast<size_t>(count - i) * sizeof(A)));
  std::memcpy(y, b + i * b_item, std::min(sizeof y, static_cast<size_t>(count - i) * sizeof(B)));
  HWY_ALIGN Word last[hn::MaxLanes(D())];
  hn::Store(differ(x, y), d, last);
  for (int64_t k = 0; k < n; ++k) different += last[k] != 0;
  return different;
}

template <class Word>
HWY_INLINE hn::Vec<hn::ScalableTag<Word>> LoadWords(const uint8_t* p) {
  return hn::LoadU(hn::ScalableTag<Word>(), reinterpret_cast<const Word*>(p));
}

// All ones where two words are not the same, nor both NaN: magnitudes above `infinity`.
template <class D>
HWY_INLINE hn::Vec<D> Unlike(D d, hn::Vec<D> x, hn::Vec<D> y, hn::TFromD<D> infinity) {
  using Word = hn::TFromD<D>;
  const hn::RebindToSigned<D> di;
  const auto magnitudes = hn::Set(d, static_cast<Word>(static_cast<Word>(~Word{0}) >> 1));
  const auto limit = hn::BitCast(di, hn::Set(d, infinity));
  const auto is_nan = [&](hn::Vec<D> v) HWY_ATTR {
    return hn::VecFromMask(d, hn::RebindMask(d, hn::Gt(hn::BitCast(di, hn::And(v, magnitudes)), limit)));
  };
  const auto same = hn::VecFromMask(d, hn::Eq(x, y));
  return hn::AndNot(hn::Or(same, hn::And(is_nan(x), is_nan(y))), hn::Set(d, static_cast<Word>(~Word{0})));
}

template <class Word>
HWY_INLINE int64_t CountFloats(const uint8_t* a, const uint8_t* b, int64_t count, Word infinity) {
  const hn::ScalableTag<Word> d;
  return CountLanes<Word, Word>(d, a, b, count, [&](const uint8_t* x, const uint8_t* y) HWY_ATTR {
    return Unlike(d, LoadWords<Word>(x), LoadWords<Word>(y), infinity);
  });
}

template <class Word>
HWY_INLINE int64_t CountWords(const uint8_t* a, const uint8_t* b, int64_t count) {
  const hn::ScalableTag<Word> d;
  return CountLanes<Word, Word>(d, a, b, count, [&](const uint8_t* x, const uint8_t* y) HWY_ATTR {
    return hn::Not(hn::VecFromMask(d, hn::Eq(LoadWords<Word>(x), LoadWords<Word>(y))));
  });
}

template <class Format>
HWY_INLINE int64_t CountRounded(const uint8_t* wide, const uint8_t* rounded, int64_t count) {
  const Floats df;
  const Words d;
  return CountLanes<float, uint16_t>(
      d, wide, rounded, count, [&](const uint8_t* x, const uint8_t* y) HWY_ATTR {
        const auto want = Narrow<Format>(df, Single::Load(df, x)), have = LoadCodes<uint16_t>(d, y);
        // Shifted so that the sign is where that of a word is.
        return Unlike(d, hn::ShiftLeft<16>(want), hn::ShiftLeft<16>(have), Format::kTop << 16);
      });
}

int64_t CountSame(const uint8_t* a, const uint8_t* b, DType dtype, int64_t item, int64_t count) {
  if (dtype == DType::kF16) return CountFloats<uint16_t>(a, b, count, 0x7c00);
  if (dtype == DType::kBF16) return CountFloats<uint16_t>(a, b, count, 0x7f80);
  if (dtype == DType::kF32) return CountFloats<uint32_t>(a, b, count, 0x7f800000);
  if (dtype == DType::kF64) return CountFloats<uint64_t>(a, b, count, 0x7ff0000000000000);
  if (item == 1) return CountWords<uint8_t>(a, b, count);
  if (item == 2) return CountWords<uint16_t>(a, b, count);
  if (item == 4) return CountWords<uint32_t>(a, b, count);
  if (item == 8) return CountWords<uint64_t>(a, b, count);
  int64_t different = 0;
  for (int64_t i = 0; i < count; ++i)
    different += std::memcmp(a + i * item, b + i * item, static_cast<size_t>(item)) != 0;
  return different;
}

int64_t CountNarrowed(const uint8_t* wide, const uint8_t* narrow, DType dtype, int64_t count) {
  return dtype == DType::kBF16 ? CountRounded<BFloat>(wide, narrow, count)
                               : CountRounded<Half>(wide, narrow, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(CountSame);
HWY_EXPORT(CountNarrowed);

bool comparable(DType wide, DType narrow) {
  return wide == narrow || (wide == DType::kF32 && (narrow == DType::kBF16 || narrow == DType::kF16));
}

int64_t count_other_bits(const uint8_t* a, const uint8_t* b, int64_t count, int64_t item) {
  return HWY_DYNAMIC_DISPATCH(CountSame)(a, b, DType::kU8, item, count);  // as of integers
}

Differences compare_rounded(const uint8_t* wide, DType wide_dtype, const uint8_t* narrow, DType narrow_dtype,
                            int64_t count) {
  const int64_t w = std::max(1, item_size(wide_dtype)), n = std::max(1, item_size(narrow_dtype));
  const bool same = wide_dtype == narrow_dtype;
  const auto count_in = [&](int64_t at, int64_t elements) {
    return same ? HWY_DYNAMIC_DISPATCH(CountSame)(wide + at * w, narrow + at * n, wide_dtype, w, elements)
                : HWY_DYNAMIC_DISPATCH(CountNarrowed)(wide + at * w, narrow + at * n, narrow_dtype, elements);
  };
  Differences out;
  if (count == 0) return out;  // of which there may be no memory
  if (same && std::memcmp(wide, narrow, static_cast<size_t>(count * w)) == 0) return out;
  out.count = count_in(0, count);
  if (out.count == 0) return out;
  int64_t first = 0;  // a difference lies in the `rest` elements from here on
  for (int64_t rest = count; rest > 1;) {
    const int64_t half = std::min<int64_t>(rest / 2, 4096);
    if (count_in(first, half) > 0) {
      rest = half;
    } else {
      first += half;
      rest -= half;
    }
  }
  out.first = first;
  return out;
}

}  // namespace uckpt::kernels
#endif
