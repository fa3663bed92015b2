// Each instruction set that this machine has, in turn: all give the same bits.
#pragma once

#include <doctest/doctest.h>
#include <hwy/highway.h>

#include <cstdint>
#include <string>
#include <vector>

namespace uckpt::kernels::testing {

template <class Function>
void on_every_target(Function function) {
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  for (int64_t rest = all; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    const std::string name = hwy::TargetName(target);
    CAPTURE(name);
    function();
  }
  hwy::SetSupportedTargetsForTest(0);
}

// What vectors of any length leave over, and what they do not.
inline constexpr int64_t kOddSizes[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1009};

}  // namespace uckpt::kernels::testing
