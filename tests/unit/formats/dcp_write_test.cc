// How tensors are cut into the chunks of a distributed checkpoint, and which rank writes what several hold.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/formats/dcp/tiling.h"
#include "lib/formats/dcp/write/chunks.h"

using namespace uckpt;
using namespace uckpt::dcp;

namespace {

Catalog with_tensor(const Shape& shape) {
  Catalog out;
  Tensor& t = out.tensors.emplace_back();
  t.name = "w";
  t.state = "param";
  t.dtype = DType::kF32;
  t.shape = shape;
  return out;
}

// One box of a rank's part of the tensor, with axes along a factoring.
struct Part {
  size_t rank;
  int64_t offset;
  std::vector<Axis> axes;
  bool is_primary = true;
};

Shards shards_of(const std::vector<Shape>& rank_shapes, const std::vector<Part>& parts) {
  Shards out;
  for (size_t rank = 0; rank < rank_shapes.size(); ++rank) {
    Shard& shard = out.ranks.emplace_back().shards.emplace_back();
    shard.shape = rank_shapes[rank];
    shard.boxes.first = static_cast<uint32_t>(out.boxes.size());
    for (const Part& p : parts) {
      if (p.rank != rank) continue;
      out.boxes.push_back({p.offset, static_cast<uint32_t>(out.axes.size()),
                           static_cast<uint8_t>(p.axes.size()), p.is_primary});
      out.axes.insert(out.axes.end(), p.axes.begin(), p.axes.end());
      ++shard.boxes.count;
    }
  }
  return out;
}

void check_tiles(const Shape& shape, const std::vector<HeldBox>& boxes) {
  std::vector<Chunk> chunks;
  for (const HeldBox& b : boxes) chunks.push_back({b.offsets, b.sizes, {}, {}});
  CHECK_NOTHROW(check_tiling(shape, chunks));
}

bool has(const std::vector<HeldBox>& boxes, const Shape& offsets, const Shape& sizes,
         const std::vector<int64_t>& ranks) {
  return std::ranges::any_of(
      boxes, [&](const HeldBox& b) { return b.offsets == offsets && b.sizes == sizes && b.ranks == ranks; });
}

}  // namespace

TEST_CASE("rows go to ranks as torch.chunk cuts them") {
  for (int64_t rows = 1; rows < 30; ++rows) {
    const Catalog catalog = with_tensor({rows, 3});
    for (int64_t ranks = 2; ranks < 9; ++ranks) {
      const int64_t each = (rows + ranks - 1) / ranks;
      const auto boxes = Cutter(catalog, {ranks, 1}, nullptr).cut(0, true);
      check_tiles({rows, 3}, boxes);
      REQUIRE(static_cast<int64_t>(boxes.size()) == (rows + each - 1) / each);
      for (size_t i = 0; i < boxes.size(); ++i) {
        const auto rank = static_cast<int64_t>(i);
        CHECK(has(boxes, {rank * each, 0}, {std::min(each, rows - rank * each), 3}, {rank}));
      }
    }
  }
}

TEST_CASE("what is not cut is whole on every rank") {
  for (const Shape& shape : {Shape{}, Shape{0, 5}, Shape{5, 0}}) {
    const auto boxes = Cutter(with_tensor(shape), {4, 1}, nullptr).cut(0, true);
    CHECK(has(boxes, Shape(shape.size(), 0), shape, {}));
  }
  CHECK(has(Cutter(with_tensor({8, 2}), {4, 1}, nullptr).cut(0, false), {0, 0}, {8, 2}, {}));
}

TEST_CASE("data parallel ranks cut what a tensor parallel rank holds") {
  const Catalog catalog = with_tensor({13, 4});
  const Shards rows = shards_of(
      {{7, 4}, {6, 4}}, {{0, 0, {{13, 0, 7, 4}, {4, 0, 4, 1}}}, {1, 0, {{13, 7, 6, 4}, {4, 0, 4, 1}}}});
  const auto by_rows = Cutter(catalog, {3, 2}, &rows).cut(0, true);
  check_tiles({13, 4}, by_rows);
  CHECK(by_rows.size() == 6);
  CHECK(has(by_rows, {6, 0}, {1, 4}, {4}));  // 7 rows over 3: 3, 3, 1
  CHECK(has(by_rows, {7, 0}, {2, 4}, {1}));  // 6 rows over 3: 2, 2, 2

  const Shards columns = shards_of(
      {{13, 2}, {13, 2}}, {{0, 0, {{13, 0, 13, 2}, {4, 0, 2, 1}}}, {1, 0, {{13, 0, 13, 2}, {4, 2, 2, 1}}}});
  const auto by_columns = Cutter(catalog, {2, 2}, &columns).cut(0, true);
  check_tiles({13, 4}, by_columns);
  CHECK(has(by_columns, {7, 2}, {6, 2}, {3}));

  const std::vector<Axis> all = {{52, 0, 52, 1}};
  const Shards copies = shards_of({{13, 4}, {13, 4}}, {{0, 0, all, true}, {1, 0, all, false}});
  const auto copied = Cutter(catalog, {2, 2}, &copies).cut(0, true);
  check_tiles({13, 4}, copied);
  CHECK(has(copied, {0, 0}, {7, 4}, {0, 1}));
  CHECK(has(copied, {7, 0}, {6, 4}, {2, 3}));
}

TEST_CASE("interleaved blocks are boxes, and one where they meet") {
  // Groups of 3 + 1 + 2 rows, two groups a rank; each rank holds its blocks in the tensor's order.
  const Catalog catalog = with_tensor({24, 2});
  std::vector<Part> parts;
  for (size_t rank = 0; rank < 2; ++rank)
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 3}, {3, 1}, {4, 2}})
      parts.push_back({rank,
                       first * 2,
                       {{4, static_cast<int64_t>(rank) * 2, 2, 12}, {6, first, count, 2}, {2, 0, 2, 1}}});
  const Shards shards = shards_of({{12, 2}, {12, 2}}, parts);
  const auto joined = Cutter(catalog, {1, 2}, &shards).cut(0, true);
  CHECK(joined.size() == 2);
  CHECK(has(joined, {12, 0}, {12, 2}, {1}));
  check_tiles({24, 2}, Cutter(catalog, {5, 2}, &shards).cut(0, true));

  // A rank that holds every other row.
  std::vector<Part> odd;
  for (size_t rank = 0; rank < 2; ++rank)
    odd.push_back({rank, 0, {{12, 0, 12, 2}, {2, static_cast<int64_t>(rank), 1, 2}, {2, 0, 2, 1}}});
  const Shards rows = shards_of({{12, 2}, {12, 2}}, odd);
  const auto apart = Cutter(catalog, {2, 2}, &rows).cut(0, true);
  CHECK(apart.size() == 24);
  check_tiles({24, 2}, apart);
}

TEST_CASE("a shard that lies the other way round is refused") {
  const Catalog catalog = with_tensor({4, 6});
  std::vector<Part> parts;  // the rank has columns as rows
  for (size_t rank = 0; rank < 2; ++rank)
    parts.push_back({rank, 0, {{4, 0, 4, 1}, {6, static_cast<int64_t>(rank) * 3, 3, 4}}});
  const Shards shards = shards_of({{3, 4}, {3, 4}}, parts);
  try {
    Cutter(catalog, {2, 2}, &shards).cut(0, true);
    FAIL("it was cut");
  } catch (const Error& e) {
    CHECK(e.code() == "dcp.cut");
    CHECK(e.exit_code() == 1);
  }
}

TEST_CASE("the rank with the fewest bytes writes what several hold") {
  RankLoads loads({4, 1});
  CHECK(loads.choose({2}, 100) == 2);
  CHECK(loads.choose({}, 10) == 0);
  CHECK(loads.choose({}, 10) == 1);
  CHECK(loads.choose({2, 3}, 10) == 3);
  CHECK(loads.choose({0, 1}, 0) == 0);  // even nothing counts as one byte
  CHECK(loads.choose({0, 1}, 0) == 1);
}
