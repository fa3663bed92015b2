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

// Of each magnitude of a type of 8 bits the code in another, by bytes.
template <class To>
using CodeTable = std::array<std::array<uint8_t, 128>, sizeof(typename To::Stored)>;

template <class From, class To>
const CodeTable<To>& codes_of() {
  static const CodeTable<To> table = [] {
    CodeTable<To> out{};
    for (size_t code = 0; code < 128; ++code) {
      const unsigned to = narrow<To>(widen<From>(static_cast<typename From::Stored>(code)));
      for (size_t byte = 0; byte < out.size(); ++byte)
        out[byte][code] = static_cast<uint8_t>(to >> (8 * byte));
    }
    return out;
  }();
  return table;
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

// From a type of 8 bits to one of 8 or 16, by a table of 8 registers for each byte: the magnitude's upper 3
// bits say which, the lower 4 where in it. An index with its highest bit set gives 0.
template <class From, class To>
void CastBytes(const uint8_t* src, uint8_t* dst, int64_t count) {
#if HWY_TARGET == HWY_SCALAR
  CastAll<Coded<From>, Coded<To>>(src, dst, count);
#else
  using Out = typename To::Stored;
  const hn::ScalableTag<uint8_t> d;
  using V = hn::Vec<hn::ScalableTag<uint8_t>>;
  const CodeTable<To>& table = codes_of<From, To>();
  const V sign = hn::Set(d, uint8_t{0x80}), high = hn::Set(d, uint8_t{0x70});
  ByVectors<uint8_t, Out>(src, dst, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
    const V code = hn::LoadU(d, s), magnitude = hn::AndNot(sign, code);
    V low = hn::Zero(d), top = hn::And(code, sign);
    for (size_t part = 0; part < 8; ++part) {
      const V index = hn::Add(hn::Xor(magnitude, hn::Set(d, static_cast<uint8_t>(16 * part))), high);
      const auto look_up = [&](size_t byte) HWY_ATTR {
        return hn::TableLookupBytesOr0(hn::LoadDup128(d, table[byte].data() + 16 * part), index);
      };
      top = hn::Or(top, look_up(sizeof(Out) - 1));
      if constexpr (sizeof(Out) == 2) low = hn::Or(low, look_up(0));
    }
    if constexpr (sizeof(Out) == 2)
      hn::StoreInterleaved2(low, top, d, t);
    else
      hn::StoreU(top, d, t);
  });
#endif
}

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
