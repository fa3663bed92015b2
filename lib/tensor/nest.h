// Loop nests over a flat range, and the part of one that falls into an interval.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace uckpt {

// `count` steps of `stride` (bytes or elements, as the owner counts); strides fall from loop to loop and what
// lies inside one step of a loop is shorter than its stride, so that positions never meet.
struct NestLoop {
  int64_t count, stride;
};

// Calls `visit(starts, counts)` with boxes of loop indices: together exactly the nest's positions (counted
// from `origin`) in [begin, end), each once. A nest of k loops gives at most 2k-1 boxes. Both spans have one
// entry a loop and are valid during the call only.
using NestVisitor = std::function<void(std::span<const int64_t> starts, std::span<const int64_t> counts)>;
void clip_nest(std::span<const NestLoop> loops, int64_t origin, int64_t begin, int64_t end,
               const NestVisitor& visit);

}  // namespace uckpt
