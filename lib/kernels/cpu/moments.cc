#include "lib/kernels/cpu/moments.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/moments.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/unrolled-inl.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kLanes = 8;
using Eight = hn::CappedTag<double, kLanes>;

// Eight doubles, in as many vectors as that takes; fewer where a vector's length is not known yet.
struct Lanes {
  static constexpr int64_t kOfVector = hn::MaxLanes(Eight()), kVectors = kLanes / kOfVector;
  hn::Vec<Eight> v[kVectors];
};

template <class Function>
HWY_INLINE void EachVector(const Function& function) {
  Unrolled<Lanes::kVectors>(function);
}

HWY_INLINE void Fill(Lanes& lanes, double value) {
  EachVector([&](auto i) HWY_ATTR { lanes.v[i] = hn::Set(Eight(), value); });
}
HWY_INLINE void Spread(const Lanes& lanes, double (&out)[kLanes]) {
  EachVector([&](auto i) HWY_ATTR { hn::StoreU(lanes.v[i], Eight(), out + i * Lanes::kOfVector); });
}
HWY_INLINE double SumOf(const Lanes& lanes) {
  double x[kLanes];
  Spread(lanes, x);
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

// Calls see(i, vector) for each vector of eight numbers; the last ones are made up to eight with `rest`.
template <class See>
HWY_INLINE void ByEights(const double* x, int64_t count, double rest, const See& see) {
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes)
    EachVector([&](auto i) HWY_ATTR { see(i, hn::LoadU(Eight(), x + at + i * Lanes::kOfVector)); });
  if (at >= count) return;
  double last[kLanes];
  std::fill_n(last, kLanes, rest);
  std::copy_n(x + at, std::min(kLanes, count - at), last);
  EachVector([&](auto i) HWY_ATTR { see(i, hn::LoadU(Eight(), last + i * Lanes::kOfVector)); });
}

Moments MomentsOf(const double* x, int64_t count) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (count == 0) return {kInfinity, -kInfinity, 0};
  Lanes low, high, sums;
  Fill(low, kInfinity);
  Fill(high, -kInfinity);
  Fill(sums, 0);
  const int64_t whole = count / kLanes * kLanes;
  ByEights(x, whole, 0, [&](auto i, auto v) HWY_ATTR {
    low.v[i] = hn::Min(v, low.v[i]);
    high.v[i] = hn::Max(v, high.v[i]);
    sums.v[i] = hn::Add(sums.v[i], v);
  });
  // A zero more changes no sum.
  ByEights(x + whole, count - whole, 0, [&](auto i, auto v) HWY_ATTR { sums.v[i] = hn::Add(sums.v[i], v); });
  ByEights(x + whole, count - whole, x[count - 1], [&](auto i, auto v) HWY_ATTR {
    low.v[i] = hn::Min(v, low.v[i]);
    high.v[i] = hn::Max(v, high.v[i]);
  });
  double least[kLanes], most[kLanes];
  Spread(low, least);
  Spread(high, most);
  return {*std::min_element(least, least + kLanes) + 0.0, *std::max_element(most, most + kLanes) + 0.0,
          SumOf(sums)};
}

double SquaresAbout(double mean, const double* x, int64_t count) {
  Lanes squares, rests;
  Fill(squares, 0);
  Fill(rests, 0);
  const auto middle = hn::Set(Eight(), mean);
  ByEights(x, count, mean, [&](auto i, auto v) HWY_ATTR {  // what is the mean itself adds nothing
    const auto away = hn::Sub(v, middle);
    squares.v[i] = hn::Add(squares.v[i], hn::Mul(away, away));
    rests.v[i] = hn::Add(rests.v[i], away);
  });
  const double rest = SumOf(rests);
  return std::max(0.0, SumOf(squares) - rest * rest / static_cast<double>(count));
}

template <class Word>
HWY_INLINE KindCounts CountKindsOf(const uint8_t* data, int64_t count, const FloatBits& bits) {
  using Signed = std::make_signed_t<Word>;
  const hn::ScalableTag<Signed> d;  // magnitudes have no sign
  using V = hn::Vec<hn::ScalableTag<Signed>>;
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  const auto set = [&](uint64_t word) HWY_ATTR { return hn::Set(d, static_cast<Signed>(word)); };
  const V magnitudes = hn::Set(d, std::numeric_limits<Signed>::max()), zero = hn::Zero(d),
          top = set(bits.top), below_special = set(bits.special - 1), normal = set(bits.normal);
  KindCounts out;
  const auto sum = [&](V lanes, int64_t& total) HWY_ATTR {
    HWY_ALIGN Signed x[hn::MaxLanes(d)];
    hn::Store(lanes, d, x);
    for (int64_t k = 0; k < n; ++k) total += x[k];
  };
  constexpr int64_t kBlock = 127;  // a lane of 8 bits counts no further
  int64_t i = 0;
  while (i < count) {
    V zeros = zero, small = zero, special = zero, tops = zero;
    const auto see = [&](V word) HWY_ATTR {
      const V magnitude = hn::And(word, magnitudes);
      zeros = hn::Sub(zeros, hn::VecFromMask(d, hn::Eq(magnitude, zero)));
      small = hn::Sub(small, hn::VecFromMask(d, hn::Lt(magnitude, normal)));
      special = hn::Sub(special, hn::VecFromMask(d, hn::Gt(magnitude, below_special)));
      tops = hn::Sub(tops, hn::VecFromMask(d, hn::Eq(magnitude, top)));
    };
    const auto at = [&](int64_t k) { return data + k * static_cast<int64_t>(sizeof(Word)); };
    if (i + n <= count) {
      const int64_t end = std::min(count - n, i + (kBlock - 1) * n);
      for (; i <= end; i += n) see(hn::LoadU(d, reinterpret_cast<const Signed*>(at(i))));
    } else {
      HWY_ALIGN Signed last[hn::MaxLanes(d)];
      std::fill_n(last, hn::MaxLanes(d), static_cast<Signed>(bits.special - 1));  // large: counts for nothing
      std::memcpy(last, at(i), std::min(sizeof last, static_cast<size_t>(count - i) * sizeof(Word)));
      see(hn::Load(d, last));
      i = count;
    }
    sum(zeros, out.zeros);
    sum(small, out.below_normal);
    sum(special, out.special);
    sum(tops, out.tops);
  }
  return out;
}

KindCounts CountKinds(const uint8_t* data, int64_t count, const FloatBits& bits) {
  if (bits.item == 1) return CountKindsOf<uint8_t>(data, count, bits);
  if (bits.item == 2) return CountKindsOf<uint16_t>(data, count, bits);
  if (bits.item == 4) return CountKindsOf<uint32_t>(data, count, bits);
  return CountKindsOf<uint64_t>(data, count, bits);
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(MomentsOf);
HWY_EXPORT(SquaresAbout);
HWY_EXPORT(CountKinds);

Moments moments_of(const double* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(MomentsOf)(x, count); }
double squares_about(double mean, const double* x, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(SquaresAbout)(mean, x, count);
}
KindCounts count_kinds(const uint8_t* data, int64_t count, const FloatBits& bits) {
  return HWY_DYNAMIC_DISPATCH(CountKinds)(data, count, bits);
}

}  // namespace uckpt::kernels
#endif
