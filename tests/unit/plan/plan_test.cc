// The join: which element of the input goes where, against a map made element by element.
#include "lib/plan/plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using namespace uckpt;

namespace {

constexpr int64_t kItem = 4;

// A tensor that lies in one file, piece by piece in the order given, each of `pieces` a flat range of it.
Catalog flat_catalog(int64_t numel, const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  Catalog c;
  Tensor t{};
  t.name = "w";
  t.state = "fp32";
  t.dtype = DType::kF32;
  t.shape = {numel};
  const uint32_t mark = c.piece_mark();
  int64_t at = 0;
  for (const auto& [start, extent] : ranges) {
    c.add_flat(0, kNoRecord, at * kItem, numel, start, extent);
    at += extent;
  }
  t.pieces = c.pieces_since(mark);
  c.tensors.push_back(t);
  return c;
}

// `parts` shards of one file, as even as can be, of rows where `columns` > 1.
TargetLayout cut(int64_t numel, int64_t columns, int64_t parts) {
  TargetLayout layout;
  layout.files.push_back({"", 0, {}, {}});
  const int64_t rows = numel / columns;
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t first = rows * p / parts, count = rows * (p + 1) / parts - first;
    TargetShard shard{0, count * columns, static_cast<uint32_t>(layout.pieces.size()), 1};
    layout.pieces.push_back(
        {0, static_cast<uint32_t>(layout.axes.size()), static_cast<uint8_t>(columns > 1 ? 2 : 1)});
    layout.axes.push_back({rows, first, count, columns});
    if (columns > 1) layout.axes.push_back({columns, 0, columns, 1});
    layout.holes.push_back({static_cast<uint32_t>(p), 0, layout.files[0].size, 0, shard.numel, DType::kF32});
    layout.files[0].size += shard.numel * kItem;
    layout.shards.push_back(shard);
  }
  return layout;
}

// For each element of the output (shard by shard) the element of the input file that it is made of.
std::vector<int64_t> carried(const plan::Plan& plan, const TargetLayout& layout, int64_t numel) {
  std::vector<int64_t> from(static_cast<size_t>(numel), -1);
  std::vector<int64_t> begins;
  for (const Hole& hole : layout.holes) begins.push_back(hole.offset / kItem);
  for (const plan::Move& m : plan.moves) {
    REQUIRE(m.loops == 0);
    for (int64_t n = 0; n < m.count; ++n) {
      int64_t& element = from[static_cast<size_t>(begins[m.shard] + (m.dst_offset + n * m.dst_step) / kItem)];
      CHECK(element == -1);
      element = (m.src_offset + n * m.src_step) / kItem;
    }
  }
  return from;
}

std::vector<std::pair<int64_t, int64_t>> random_ranges(int64_t numel, int64_t count, std::mt19937& random) {
  std::vector<int64_t> edges = {0, numel};
  while (static_cast<int64_t>(edges.size()) <= count) {
    const auto edge = std::uniform_int_distribution<int64_t>(1, numel - 1)(random);
    if (std::ranges::find(edges, edge) == edges.end()) edges.push_back(edge);
  }
  std::ranges::sort(edges);
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (size_t i = 0; i + 1 < edges.size(); ++i) ranges.emplace_back(edges[i], edges[i + 1] - edges[i]);
  return ranges;
}

}  // namespace

TEST_CASE("many pieces, in whatever order, meet many shards") {
  std::mt19937 random(7);
  constexpr int64_t kNumel = 240;
  for (int round = 0; round < 200; ++round) {
    const int64_t columns = round % 3 == 0 ? 12 : 1, parts = 1 + round % 20;
    auto ranges = random_ranges(kNumel, 1 + round % 23, random);
    if (round % 2 == 0) std::ranges::shuffle(ranges, random);
    const Catalog catalog = flat_catalog(kNumel, ranges);
    const TargetLayout layout = cut(kNumel, columns, parts);
    const plan::Plan plan = plan::make_plan(catalog, layout, {});
    std::vector<int64_t> expected(kNumel);
    int64_t at = 0;
    for (const auto& [start, extent] : ranges)
      for (int64_t n = 0; n < extent; ++n) expected[static_cast<size_t>(start + n)] = at++;
    CAPTURE(round);
    CHECK(carried(plan, layout, kNumel) == expected);
  }
}

TEST_CASE("a piece that is missing or comes twice is found, whatever the order") {
  std::mt19937 random(8);
  for (int round = 0; round < 50; ++round) {
    auto ranges = random_ranges(240, 12, random);
    if (round % 2 == 0) std::ranges::shuffle(ranges, random);
    const TargetLayout layout = cut(240, 1, 5);
    auto twice = ranges, fewer = ranges;
    twice.push_back(ranges[static_cast<size_t>(round) % ranges.size()]);
    fewer.erase(fewer.begin() + round % 12);
    CHECK_THROWS_AS(plan::make_plan(flat_catalog(240, twice), layout, {}), Error);
    CHECK_THROWS_AS(plan::make_plan(flat_catalog(240, fewer), layout, {}), Error);
  }
}

// Moves are most of what planning holds: they are never held twice, in room that grows.
TEST_CASE("room is made for as many moves as flat ranges can make") {
  std::mt19937 random(9);
  auto ranges = random_ranges(1 << 14, 1000, random);
  std::ranges::shuffle(ranges, random);  // else neighbours become one move
  const Catalog catalog = flat_catalog(1 << 14, ranges);
  const TargetLayout layout = cut(1 << 14, 1, 64);
  const plan::Plan plan = plan::make_plan(catalog, layout, {});
  CHECK(plan.moves.size() > 1000);
  CHECK(plan.moves.capacity() == ranges.size() + layout.pieces.size());
}
