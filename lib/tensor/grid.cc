#include "lib/tensor/grid.h"

#include <algorithm>
#include <map>

#include "lib/base/checked.h"

namespace uckpt {

std::optional<Grid> grid_of(const Shape& shape, size_t boxes, const IntervalOf& interval) {
  const size_t rank = shape.size();
  std::vector<std::map<int64_t, int64_t>> parts(rank);  // start -> extent
  for (size_t b = 0; b < boxes; ++b) {
    for (size_t d = 0; d < rank; ++d) {
      const Interval i = interval(b, d);
      if (parts[d].emplace(i.start, i.extent).first->second != i.extent) return std::nullopt;
    }
  }
  Grid grid(rank);
  size_t cells = 1;
  for (size_t d = 0; d < rank; ++d) {
    for (const auto& [start, extent] : parts[d]) grid[d].push_back(extent);
    if (grid[d].empty()) grid[d].push_back(shape[d]);
    cells *= grid[d].size();  // at most boxes squared
    if (cells > std::max<size_t>(boxes, 1)) return std::nullopt;
  }
  return grid;
}

std::vector<size_t> cut_dims(const Grid& grid) {
  std::vector<size_t> out;
  for (size_t d = 0; d < grid.size(); ++d)
    if (grid[d].size() > 1) out.push_back(d);
  return out;
}

bool is_even(const std::vector<int64_t>& parts) {
  return std::all_of(parts.begin(), parts.end(), [&](int64_t n) { return n == parts.front(); });
}

bool is_chunked(const std::vector<int64_t>& parts, int64_t size, int64_t ranks) {
  if (ranks < 1 || static_cast<int64_t>(parts.size()) > ranks) return false;
  const int64_t share = ceil_div(size, ranks);
  int64_t left = size;
  for (const int64_t part : parts) {
    if (part != std::min(share, left)) return false;
    left -= part;
  }
  return left == 0;
}

std::vector<int64_t> guess_mesh(std::span<const std::optional<Grid>> grids) {
  std::map<std::pair<int64_t, int64_t>, size_t> pairs;
  int64_t longest = 0;
  for (const auto& grid : grids) {
    if (!grid) continue;
    const std::vector<size_t> dims = cut_dims(*grid);
    const auto parts = [&](size_t i) { return static_cast<int64_t>((*grid)[dims[i]].size()); };
    if (dims.size() == 2) ++pairs[{parts(0), parts(1)}];
    if (dims.size() == 1) longest = std::max(longest, parts(0));
  }
  if (pairs.empty()) return longest > 0 ? std::vector<int64_t>{longest} : std::vector<int64_t>{};
  const auto [a, b] = std::max_element(pairs.begin(), pairs.end(), [](const auto& x, const auto& y) {
                        return x.second < y.second;
                      })->first;
  return {a, b};
}

}  // namespace uckpt
