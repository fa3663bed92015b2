// Which holes lie in a file of the output: internal to lib/exec.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "lib/tensor/target.h"

namespace uckpt::exec {

// [first, last)
inline std::pair<uint32_t, uint32_t> holes_of(const TargetLayout& target, uint32_t file) {
  const auto begin = target.holes.begin();
  const auto first = std::ranges::lower_bound(target.holes, file, {}, &Hole::file);
  const auto last = std::ranges::upper_bound(target.holes, file, {}, &Hole::file);
  return {static_cast<uint32_t>(first - begin), static_cast<uint32_t>(last - begin)};
}

}  // namespace uckpt::exec
