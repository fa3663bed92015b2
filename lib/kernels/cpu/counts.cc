#include "lib/kernels/cpu/counts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/counts.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

BlockDifferences CompareDoubles(const double* a, const double* b, int64_t count, const Tolerance& tolerance) {
  const hn::ScalableTag<double> d;
  using V = hn::Vec<hn::ScalableTag<double>>;
  const V absolute = hn::Set(d, tolerance.absolute), relative = hn::Set(d, tolerance.relative),
          zero = hn::Zero(d), most = hn::Set(d, std::numeric_limits<double>::max());
  const auto n = static_cast<int64_t>(hn::Lanes(d));
  BlockDifferences out;
  V max_within = zero, max_absolute = zero, max_relative = zero;
  const auto see = [&](V x, V y) HWY_ATTR {
    const auto both_nan = hn::And(hn::IsNaN(x), hn::IsNaN(y));
    const auto apart = hn::Not(hn::Or(hn::Eq(x, y), both_nan));
    if (hn::AllFalse(d, apart)) return;
    const V size = hn::Abs(y), distance = hn::Abs(hn::Sub(x, y));
    const auto finite = hn::And(apart, hn::And(hn::Le(hn::Abs(x), most), hn::Le(size, most)));
    const auto near = hn::And(finite, hn::Le(distance, hn::Add(absolute, hn::Mul(relative, size))));
    const auto far = hn::AndNot(near, finite), sized = hn::And(far, hn::Gt(size, zero));
    const auto add = [&](int64_t& sum, auto mask)
                         HWY_ATTR { sum += static_cast<int64_t>(hn::CountTrue(d, mask)); };
    add(out.within, near);
    add(out.different, hn::AndNot(near, apart));
    add(out.unlike, hn::AndNot(finite, apart));
    add(out.finite, far);
    add(out.sized, sized);
    max_within = hn::Max(max_within, hn::IfThenElseZero(near, distance));
    max_absolute = hn::Max(max_absolute, hn::IfThenElseZero(far, distance));
    max_relative = hn::Max(max_relative, hn::IfThenElseZero(sized, hn::Div(distance, size)));
  };
  int64_t i = 0;
  for (; i + n <= count; i += n) see(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
  if (i < count) {
    HWY_ALIGN double x[hn::MaxLanes(d)] = {}, y[hn::MaxLanes(d)] = {};
    std::copy_n(a + i, std::min(n, count - i), x);
    std::copy_n(b + i, std::min(n, count - i), y);
    see(hn::Load(d, x), hn::Load(d, y));
  }
  out.max_within = hn::GetLane(hn::MaxOfLanes(d, max_within));
  out.max_absolute = hn::GetLane(hn::MaxOfLanes(d, max_absolute));
  out.max_relative = hn::GetLane(hn::MaxOfLanes(d, max_relative));
  return out;
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(CompareDoubles);

BlockDifferences compare_doubles(const double* a, const double* b, int64_t count,
                                 const Tolerance& tolerance) {
  return HWY_DYNAMIC_DISPATCH(CompareDoubles)(a, b, count, tolerance);
}

}  // namespace uckpt::kernels
#endif
