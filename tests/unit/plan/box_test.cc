#include "lib/plan/box.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

using namespace uckpt;
using namespace uckpt::plan;

namespace {

// Element number in the tensor -> element offset in memory, by walking every element of a box.
std::map<int64_t, int64_t> elements(const Box& box) {
  std::map<int64_t, int64_t> out;
  const int64_t n = box.volume();
  for (int64_t e = 0; e < n; ++e) {
    int64_t rest = e, number = 0, offset = box.offset, weight = 1;
    for (size_t i = box.axes.size(); i-- > 0;) {
      const Axis& a = box.axes[i];
      const int64_t index = rest % a.extent;
      rest /= a.extent;
      number += (a.start + index) * weight;
      offset += index * a.stride;
      weight *= a.size;
    }
    out[number] = offset;
  }
  return out;
}

}  // namespace

TEST_CASE("coarsening joins what is one axis in memory") {
  const std::vector<Axis> dense = {{3, 0, 3, 20}, {4, 0, 4, 5}, {5, 0, 5, 1}};
  CHECK(coarsen(0, dense).axes.size() == 1);
  const std::vector<Axis> columns = {{3, 0, 3, 10}, {4, 1, 2, 1}};
  CHECK(coarsen(0, columns).axes.size() == 2);
  const std::vector<Axis> ones = {{1, 0, 1, 7}, {4, 0, 4, 1}, {1, 0, 1, 9}};
  CHECK(coarsen(0, ones).axes.size() == 1);
}

TEST_CASE("a flat range of k factors is at most 2k-1 boxes, with the same elements") {
  std::mt19937 rng(5);
  for (int round = 0; round < 400; ++round) {
    std::vector<int64_t> sizes;
    int64_t numel = 1;
    Cuts cuts;
    for (size_t k = 1 + rng() % 4; k > 0; --k) {
      sizes.push_back(static_cast<int64_t>(2 + rng() % 4));
      numel *= sizes.back();
      cuts.push_back(numel);
    }
    const auto start = static_cast<int64_t>(rng()) % numel;
    const int64_t extent = 1 + static_cast<int64_t>(rng()) % (numel - start);
    const Box flat{7, {{numel, start, extent, 3}}};
    std::vector<Box> parts;
    refine(flat, cuts, parts);
    CHECK(parts.size() <= 2 * sizes.size() - 1);
    std::map<int64_t, int64_t> found;
    size_t total = 0;
    for (const Box& b : parts) {
      const auto e = elements(b);
      total += e.size();
      found.insert(e.begin(), e.end());
    }
    REQUIRE(total == found.size());
    REQUIRE(found == elements(flat));
  }
}

TEST_CASE("factorings that do not nest have no common refinement") {
  CHECK(common_cuts({4, 24}, {24}) == Cuts{4, 24});
  CHECK(common_cuts({6, 24}, {2, 24}) == Cuts{2, 6, 24});
  CHECK(!common_cuts({6, 24}, {4, 24}));
}

TEST_CASE("covers are proved, holes and overlaps found") {
  const auto box = [](std::vector<Axis> axes) { return Box{0, std::move(axes)}; };
  // Two column shards of [4, 6], and the same with the second moved by one.
  const std::vector<Box> columns = {box({{4, 0, 4, 3}, {6, 0, 3, 1}}), box({{4, 0, 4, 3}, {6, 3, 3, 1}})};
  CHECK(!find_cover_problem(columns, 24));
  const std::vector<Box> overlap = {box({{4, 0, 4, 3}, {6, 0, 3, 1}}), box({{4, 0, 4, 3}, {6, 2, 3, 1}})};
  CHECK(find_cover_problem(overlap, 24)->kind == CoverProblem::kOverlap);
  const std::vector<Box> hole = {box({{24, 0, 10, 1}}), box({{24, 11, 13, 1}})};
  CHECK(find_cover_problem(hole, 24)->kind == CoverProblem::kHole);
  // The volumes add up, and still two boxes meet and an element is missing.
  const std::vector<Box> sly = {box({{24, 0, 12, 1}}), box({{24, 11, 12, 1}})};
  CHECK(find_cover_problem(sly, 24)->kind == CoverProblem::kOverlap);
  const std::vector<Box> none;
  CHECK(!find_cover_problem(none, 0));
  CHECK(find_cover_problem(none, 1)->kind == CoverProblem::kHole);
}

TEST_CASE("random tilings and their damages") {
  std::mt19937 rng(6);
  for (int round = 0; round < 200; ++round) {
    // Guillotine cuts of a 3-d box.
    std::vector<Box> boxes = {{0, {{6, 0, 6, 1}, {5, 0, 5, 1}, {4, 0, 4, 1}}}};
    for (int cut = 0; cut < 6; ++cut) {
      const size_t which = rng() % boxes.size(), axis = rng() % 3;
      Axis& a = boxes[which].axes[axis];
      if (a.extent < 2) continue;
      const int64_t left = 1 + static_cast<int64_t>(rng()) % (a.extent - 1);
      Box right = boxes[which];
      right.axes[axis].start += left;
      right.axes[axis].extent -= left;
      a.extent = left;
      boxes.push_back(right);
    }
    std::shuffle(boxes.begin(), boxes.end(), rng);
    REQUIRE(!find_cover_problem(boxes, 120));
    if (boxes.size() < 2) continue;
    std::vector<Box> twice = boxes;
    twice[0] = twice[1];
    REQUIRE(find_cover_problem(twice, 120));
  }
}
