// Boxes of one tensor as two files see them, and what they have in common.
//
// A box is a product of intervals along a factoring of the tensor. Two factorings are compared through their
// *cuts*: the suffix products of their sizes. [6, 4] has the cuts {4, 24}, its flat form [24] has {24}; the
// common refinement has the union of the cuts, and exists when each cut divides the next larger one. An
// interval of an axis of size n1·n2, seen along (n1, n2), is at most three boxes: a partial first row, whole
// rows, a partial last row; so a flat range of a k-dimensional tensor becomes at most 2k-1 boxes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::plan {

// A box with its own axes, outermost first. `offset` is in elements from wherever the owner counts.
struct Box {
  int64_t offset = 0;
  std::vector<Axis> axes;

  int64_t volume() const;
};

// Joins neighbouring axes that form one longer axis in memory, and drops axes of size 1: the coarsest form.
Box coarsen(int64_t offset, std::span<const Axis> axes);

using Cuts = std::vector<int64_t>;  // ascending, the last is the tensor's element count

Cuts cuts_of(std::span<const Axis> axes);
// The union of two cut lists, or nothing if they do not nest.
std::optional<Cuts> common_cuts(const Cuts& a, const Cuts& b);

// The same elements along the finer factoring `cuts`, appended to `out`.
void refine(const Box& box, const Cuts& cuts, std::vector<Box>& out);

// The first and last element of the box in the tensor's row-major order.
struct Hull {
  int64_t first, last;
};
Hull hull_of(std::span<const Axis> axes);

// Do these boxes (of one tensor of `numel` elements) tile it: no two meet and the volumes add up?
// Tells the first problem, else nothing.
struct CoverProblem {
  enum Kind { kHole, kOverlap, kFactoring } kind;
  int64_t covered;  // elements, counted with repetition
};
std::optional<CoverProblem> find_cover_problem(std::span<const Box> boxes, int64_t numel);

}  // namespace uckpt::plan
