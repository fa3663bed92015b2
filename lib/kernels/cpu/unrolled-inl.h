// Loops over arrays of registers: as loops, compilers leave them in memory.

// Included once for each instruction set.
#if defined(UCKPT_KERNELS_UNROLLED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef UCKPT_KERNELS_UNROLLED_INL_H
#undef UCKPT_KERNELS_UNROLLED_INL_H
#else
#define UCKPT_KERNELS_UNROLLED_INL_H
#endif

#include <hwy/highway.h>

#include <type_traits>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

// function(0), … function(kCount - 1), each number a constant.
template <size_t kCount, class Function>
HWY_INLINE void Unrolled(const Function& function) {
  [&]<size_t... kIndex>(std::index_sequence<kIndex...>) HWY_ATTR {
    (function(std::integral_constant<size_t, kIndex>()), ...);
  }
  (std::make_index_sequence<kCount>());
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#endif
