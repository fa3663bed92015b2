// Loops over arrays of registers: as loops, compilers leave them in memory.

// Included once for each instruction set.
#if defined(UCKPT_KERNELS_UNROLLED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef UCKPT_KERNELS_UNROLLED_INL_H
#undef UCKPT_KERNELS_UNROLLED_INL_H
#else
#define UCKPT_KERNELS_UNROLLED_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#ifndef UCKPT_INLINE
#define UCKPT_INLINE HWY_ATTR __attribute__((always_inline))  // of a lambda: its registers are its caller's
#endif

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {

template <class Function, int64_t... kIndex>
HWY_INLINE void UnrolledOver(const Function& function, std::integer_sequence<int64_t, kIndex...>) {
  (function(std::integral_constant<int64_t, kIndex>()), ...);
}

// function(0), … function(kCount - 1), each number a constant.
template <int64_t kCount, class Function>
HWY_INLINE void Unrolled(const Function& function) {
  UnrolledOver(function, std::make_integer_sequence<int64_t, kCount>());
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#endif
