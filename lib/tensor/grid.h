// Boxes of one tensor seen as a grid: how it lay over ranks, as far as its parts tell.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt {

// Along each dim the sizes of the parts, in order. A dim that is not cut has one part.
using Grid = std::vector<std::vector<int64_t>>;

// Where a box begins along a dim, and how far it reaches; in elements.
struct Interval {
  int64_t start, extent;
};
using IntervalOf = std::function<Interval(size_t box, size_t dim)>;

// The grid of boxes that tile a tensor; nothing where they are none.
std::optional<Grid> grid_of(const Shape& shape, size_t boxes, const IntervalOf& interval);

std::vector<size_t> cut_dims(const Grid& grid);   // those with several parts
bool is_even(const std::vector<int64_t>& parts);  // all of one size
// As torch.chunk cuts: each of `ranks` takes the size over ranks, rounded up; the last ones less, or nothing.
bool is_chunked(const std::vector<int64_t>& parts, int64_t size, int64_t ranks);

// The sizes of the axes over which tensors seem to be cut: {4} where all that is cut is cut along one dim,
// {2, 2} where tensors are cut along two dims at once. Empty if nothing is cut.
std::vector<int64_t> guess_mesh(std::span<const std::optional<Grid>> grids);

}  // namespace uckpt
