#include "lib/kernels/arithmetic.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/arithmetic.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/floats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

// `function` gets how the type is read and written, and the vectors that it is reckoned in.
template <class Function>
HWY_INLINE void WithArithmetic(DType dtype, const Function& function) {
  if (dtype == DType::kF16) return function(Coded<Half>(), Floats());
  if (dtype == DType::kBF16) return function(Coded<BFloat>(), Floats());
  if (dtype == DType::kF32) return function(Single(), Floats());
  if (dtype == DType::kF64) return function(Double(), Doubles());
}

void Add(uint8_t* into, const uint8_t* other, DType dtype, int64_t count) {
  WithArithmetic(dtype, [&]<class Type, class D>(Type, D d) HWY_ATTR {
    using Stored = typename Type::Stored;
    constexpr auto item = static_cast<int64_t>(sizeof(Stored));
    const auto n = static_cast<int64_t>(hn::Lanes(d));
    const auto add = [&](uint8_t* a, const uint8_t* b) HWY_ATTR {
      Type::Store(d, hn::Add(Type::LoadNumber(d, a), Type::LoadNumber(d, b)), a);
    };
    int64_t i = 0;
    for (; i + n <= count; i += n) add(into + i * item, other + i * item);
    if (i >= count) return;
    HWY_ALIGN uint8_t a[hn::MaxLanes(D()) * sizeof(Stored)] = {}, b[sizeof a] = {};
    const size_t bytes = std::min(sizeof a, static_cast<size_t>(count - i) * sizeof(Stored));
    std::memcpy(a, into + i * item, bytes);
    std::memcpy(b, other + i * item, bytes);
    add(a, b);
    std::memcpy(into + i * item, a, bytes);
  });
}

void Divide(uint8_t* into, double by, DType dtype, int64_t count) {
  WithArithmetic(dtype, [&]<class Type, class D>(Type, D d) HWY_ATTR {
    const auto divisor = hn::Set(d, static_cast<hn::TFromD<D>>(by));
    using Stored = typename Type::Stored;
    ByVectors<Stored, Stored>(into, into, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
      Type::Store(d, hn::Div(Type::LoadNumber(d, s), divisor), t);
    });
  });
}

// Rounded after each of the two: never by an instruction that does both.
void Scale(uint8_t* into, double factor, double summand, DType dtype, int64_t count) {
  WithArithmetic(dtype, [&]<class Type, class D>(Type, D d) HWY_ATTR {
    using Float = hn::TFromD<D>;
    const auto by = hn::Set(d, static_cast<Float>(factor)), more = hn::Set(d, static_cast<Float>(summand));
    const bool multiplies = factor != 1, adds = summand != 0;
    using Stored = typename Type::Stored;
    ByVectors<Stored, Stored>(into, into, count, hn::Lanes(d), [&](const uint8_t* s, uint8_t* t) HWY_ATTR {
      auto x = Type::LoadNumber(d, s);
      if (multiplies) x = hn::Mul(x, by);
      if (adds) x = hn::Add(x, more);
      Type::Store(d, x, t);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(Add);
HWY_EXPORT(Divide);
HWY_EXPORT(Scale);

bool has_arithmetic(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32 || dtype == DType::kF64;
}

void add(uint8_t* into, const uint8_t* other, DType dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Add)(into, other, dtype, count);
}
void divide(uint8_t* into, double by, DType dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Divide)(into, by, dtype, count);
}
void scale(uint8_t* into, double factor, double summand, DType dtype, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Scale)(into, factor, summand, dtype, count);
}

}  // namespace uckpt::kernels
#endif
