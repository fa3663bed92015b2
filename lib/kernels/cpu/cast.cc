#include "lib/kernels/cast.h"

#include <array>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/cast.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/floats-inl.h"

#ifndef UCKPT_CAST_TABLES
#define UCKPT_CAST_TABLES
namespace uckpt::kernels {
namespace {

// Of the first magnitudes of a type of 8 bits the codes in another, by their bytes.
template <class From, class To, size_t kCount>
const uint8_t* codes_of() {
  using Codes = std::array<uint8_t, kCount * sizeof(typename To::Stored)>;
  static const Codes codes = [] {
    Codes out{};
    for (size_t code = 0; code < kCount; ++code) {
      const typename To::Stored to = narrow<To>(widen<From>(static_cast<typename From::Stored>(code)));
      std::memcpy(out.data() + code * sizeof to, &to, sizeof to);
    }
    return out;
  }();
  return codes.data();
}

}  // namespace
}  // namespace uckpt::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

template <class From, class To>
void CastAll(const uint8_t* src, uint8_t* dst, int64_t count) {
  using In = typename From::Stored;
  using Out = typename To::Stored;
  if constexpr (std::is_same_v<In, double>) {
    const Doubles d;
    ByVectors<In, Out>(src, dst, count, hn::Lanes(d),
                       [&](const uint8_t* s, uint8_t* t) HWY_ATTR { To::Store(d, From::Load(d, s), t); });
  } else if constexpr (std::is_same_v<Out, double>) {
    const Doubles d;
    ByVectors<In, Out>(src, dst, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
      To::Store(d, hn::PromoteTo(d, From::Load(HalfFloats(), s)), t);
    });
  } else {
    const Floats d;
    ByVectors<In, Out>(src, dst, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
      if constexpr (std::is_same_v<Out, float>)
        To::Store(d, From::Load(d, s), t);
      else
        To::Store(d, From::LoadNumber(d, s), t);
    });
  }
}

#if HWY_TARGET == HWY_SCALAR
template <class From, class To>
void CastBytes(const uint8_t* src, uint8_t* dst, int64_t count) {
  CastAll<Coded<From>, Coded<To>>(src, dst, count);
}
#else
// To another type of 8 bits, by a table of 8 registers: the magnitude's upper 3 bits say which, the lower 4
// where in it. An index with its highest bit set gives 0.
template <class From, class To>
void CastBytesToBytes(const uint8_t* src, uint8_t* dst, int64_t count) {
  const hn::ScalableTag<uint8_t> d;
  using V = hn::Vec<hn::ScalableTag<uint8_t>>;
  const uint8_t* table = codes_of<From, To, 128>();
  const V sign = hn::Set(d, uint8_t{0x80});
  const hn::RebindToSigned<decltype(d)> signs;
  const auto last = hn::Set(signs, int8_t{15});
  ByVectors<uint8_t, uint8_t>(src, dst, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
    const V code = hn::LoadU(d, s), magnitude = hn::AndNot(sign, code);
    V out = hn::And(code, sign);
    for (size_t part = 0; part < 128; part += 16) {
      const V place = hn::Xor(magnitude, hn::Set(d, static_cast<uint8_t>(part)));
      const V index =
          hn::Or(place, hn::VecFromMask(d, hn::RebindMask(d, hn::Gt(hn::BitCast(signs, place), last))));
      out = hn::Or(out, hn::TableLookupBytesOr0(hn::LoadDup128(d, table + part), index));
    }
    hn::StoreU(out, d, t);
  });
}

// To a type of 16 bits, which has all of their numbers as normal ones or in the same places: only exponents
// are rebiased, and the up to 8 subnormals looked up in a register.
template <class From, class To>
void CastBytesToWords(const uint8_t* src, uint8_t* dst, int64_t count) {
  const hn::ScalableTag<uint16_t> d;
  using V = hn::Vec<hn::ScalableTag<uint16_t>>;
  const hn::Repartition<uint8_t, decltype(d)> bytes;
  constexpr size_t kSubnormals = size_t{1} << From::kMantissa;
  HWY_ALIGN uint8_t codes[16] = {};
  std::memcpy(codes, codes_of<From, To, kSubnormals>(), 2 * kSubnormals);
  const auto table = hn::LoadDup128(bytes, codes);
  const auto set = [&](uint32_t word) HWY_ATTR { return hn::Set(d, static_cast<uint16_t>(word)); };
  const V magnitudes = set(0x7f),
          rebias = set(static_cast<uint32_t>(To::kBias - From::kBias) << To::kMantissa), twice = set(0x0202),
          second = set(0x0100), first_normal = set(kSubnormals), top = set(From::kTop),
          infinity = set(To::kTop), nan = set(To::kNaN);
  ByVectors<uint8_t, uint16_t>(src, dst, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
    const V code = LoadCodes<uint8_t>(d, s), magnitude = hn::And(code, magnitudes);
    const V sign = hn::ShiftLeft<8>(hn::AndNot(magnitudes, code));
    V number = hn::Add(hn::ShiftLeft<To::kMantissa - From::kMantissa>(magnitude), rebias);
    const V places = hn::Add(hn::Mul(magnitude, twice), second);  // of both bytes
    const V subnormal = hn::BitCast(d, hn::TableLookupBytes(table, hn::BitCast(bytes, places)));
    number = hn::IfThenElse(hn::Lt(magnitude, first_normal), subnormal, number);
    if constexpr (From::kTop == From::kFirstSpecial)
      number = hn::IfThenElse(hn::Eq(magnitude, top), infinity, number);
    number = hn::IfThenElse(hn::Gt(magnitude, top), nan, number);
    hn::StoreU(hn::Or(number, sign), d, reinterpret_cast<uint16_t*>(t));
  });
}

template <class From, class To>
void CastBytes(const uint8_t* src, uint8_t* dst, int64_t count) {
  if constexpr (sizeof(typename To::Stored) == 1)
    CastBytesToBytes<From, To>(src, dst, count);
  else
    CastBytesToWords<From, To>(src, dst, count);
}
#endif

template <class Type>
struct FormatOf {
  using Format = void;
};
template <class Format_>
struct FormatOf<Coded<Format_>> {
  using Format = Format_;
};

template <class From, class To>
void CastPair(const uint8_t* src, uint8_t* dst, int64_t count) {
  using A = typename FormatOf<From>::Format;
  using B = typename FormatOf<To>::Format;
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(dst, src, static_cast<size_t>(count) * sizeof(typename From::Stored));
  } else if constexpr (!std::is_void_v<A> && !std::is_void_v<B> && sizeof(typename From::Stored) == 1) {
    CastBytes<A, B>(src, dst, count);
  } else {
    CastAll<From, To>(src, dst, count);
  }
}

// Calls `function` with the type's reading and writing; false if it is none of ours.
template <class Function>
bool WithType(DType dtype, Function function) {
  switch (dtype) {
    case DType::kF64:
      function(Double());
      return true;
    case DType::kF32:
      function(Single());
      return true;
    case DType::kF16:
      function(Coded<Half>());
      return true;
    case DType::kBF16:
      function(Coded<BFloat>());
      return true;
    case DType::kF8E4M3:
      function(Coded<E4M3>());
      return true;
    case DType::kF8E5M2:
      function(Coded<E5M2>());
      return true;
    default:
      return false;
  }
}

void Cast(const uint8_t* src, DType src_dtype, uint8_t* dst, DType dst_dtype, int64_t count) {
  WithType(src_dtype, [&]<class From>(From) {
    WithType(dst_dtype, [&]<class To>(To) { CastPair<From, To>(src, dst, count); });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(Cast);

bool can_cast(DType from, DType to) {
  const auto ours = [](DType dtype) { return HWY_STATIC_DISPATCH(WithType)(dtype, [](auto) {}); };
  return ours(from) && ours(to);
}

void cast(const uint8_t* src, DType src_dtype, uint8_t* dst, DType dst_dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Cast)(src, src_dtype, dst, dst_dtype, count);
}

}  // namespace uckpt::kernels
#endif
