// A loop nest over a tensor's elements as boxes along factorings of it: what `Piece` is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// `count` steps of `to` elements in the tensor's row-major order and of `from` elements in the file.
struct Walk {
  int64_t count, to, from;
};

// Calls `box(from, axes)` with boxes that together are the nest: `from` is the element in the file where a
// box begins. A nest whose strides divide one another is one box; others are taken apart, loop by loop.
// Throws `layout.too_many_pieces` where that would be more than `kMaxStrands` boxes.
using BoxVisitor = std::function<void(int64_t from, std::span<const Axis> axes)>;
void to_boxes(int64_t numel, int64_t to, int64_t from, std::vector<Walk> nest, const BoxVisitor& box);

}  // namespace uckpt::layout
