#include "lib/tensor/grid.h"

#include <doctest/doctest.h>

using namespace uckpt;

namespace {

using Box = std::vector<Interval>;

std::optional<Grid> grid(const Shape& shape, const std::vector<Box>& boxes) {
  return grid_of(shape, boxes.size(), [&](size_t b, size_t d) { return boxes[b][d]; });
}

}  // namespace

TEST_CASE("grid: boxes along one dim, along two, and such as are none") {
  CHECK(grid({5}, {{{0, 2}}, {{2, 2}}, {{4, 1}}}) == Grid{{2, 2, 1}});
  CHECK(grid({4, 6}, {{{0, 2}, {0, 3}}, {{0, 2}, {3, 3}}, {{2, 2}, {0, 3}}, {{2, 2}, {3, 3}}}) ==
        Grid{{2, 2}, {3, 3}});
  CHECK(!grid({2, 2}, {{{0, 1}, {0, 2}}, {{1, 1}, {0, 1}}, {{1, 1}, {1, 1}}}));
  CHECK(grid({}, {{}}) == Grid{});
  CHECK(grid({3, 2}, {{{0, 3}, {0, 2}}}) == Grid{{3}, {2}});
}

TEST_CASE("grid: as torch.chunk cuts") {
  CHECK(is_chunked({4, 4, 4, 1}, 13, 4));
  CHECK(is_chunked({1, 1, 1}, 3, 4));
  CHECK(!is_chunked({3, 3, 3, 4}, 13, 4));
  CHECK(!is_chunked({4, 4, 4}, 13, 4));
  CHECK(!is_chunked({1, 1, 1, 1, 1}, 5, 4));
  CHECK(is_even({2, 2}));
  CHECK(!is_even({2, 1}));
}

TEST_CASE("grid: the mesh is guessed from what is cut most") {
  const std::vector<std::optional<Grid>> rows = {Grid{{4, 4, 4, 1}, {5}}, Grid{{3}}, Grid{{1, 1, 1}},
                                                 std::nullopt};
  CHECK(guess_mesh(rows) == std::vector<int64_t>{4});
  const std::vector<std::optional<Grid>> both = {Grid{{2, 2}, {3, 3}}, Grid{{1, 1, 1, 1}, {8}}};
  CHECK(guess_mesh(both) == std::vector<int64_t>{2, 2});
  const std::vector<std::optional<Grid>> whole = {Grid{{4}, {4}}};
  CHECK(guess_mesh(whole).empty());
}
