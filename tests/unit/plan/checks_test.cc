#include <doctest/doctest.h>

#include <memory>

#include "lib/io/input.h"
#include "lib/plan/plan.h"

using namespace uckpt;

namespace {

// Files with one checksummed record each, and tensors of fp32 that go whole into one output.
struct Example {
  Catalog catalog;
  TargetLayout layout{{{"", 0, {}, {}}}, {}, {}, {}, {}, {}, {}, {}, {}};

  uint32_t record(int64_t offset, int64_t size) {
    return catalog.add_record(catalog.add_file(nullptr), offset, size, 0, "data/0");
  }
  template <class AddPieces>
  void tensor(Shape shape, const AddPieces& add) {
    Tensor t{};
    t.name = "t";
    t.dtype = DType::kF32;
    t.shape = std::move(shape);
    const uint32_t mark = catalog.piece_mark();
    add();
    t.pieces = catalog.pieces_since(mark);
    const auto number = static_cast<uint32_t>(catalog.tensors.size());
    catalog.tensors.push_back(t);
    const uint32_t shard = layout.add_whole_shard(catalog, number);
    int64_t& size = layout.files[0].size;
    layout.holes.push_back({shard, 0, size, 0, layout.shards[shard].numel, DType::kF32});
    size += layout.holes.back().bytes();
  }
  // The columns [first, first + width) of rows x columns, which fill their file from `offset` on.
  void columns(uint32_t record, int64_t offset, int64_t rows, int64_t columns, int64_t first, int64_t width) {
    const Axis box[] = {{rows, 0, rows, width}, {columns, first, width, 1}};
    catalog.add_piece(catalog.records[record].file, record, offset, box);
  }
  plan::Plan plan() const { return plan::make_plan(catalog, layout, {}); }
};

}  // namespace

TEST_CASE("column shards are checked on the way, with what lies around them in their records") {
  Example e;
  const uint32_t first = e.record(100, 4 * 30 * 20), second = e.record(64, 4 * 30 * 12 + 56);
  e.tensor({30, 32}, [&] {
    e.columns(first, 100, 30, 32, 0, 20);
    e.columns(second, 64 + 16, 30, 32, 20, 12);
  });
  const plan::Plan p = e.plan();
  REQUIRE(p.checks.size() == 2);
  CHECK(!p.checks[p.check_of_record[first]].own_pass);
  CHECK(!p.checks[p.check_of_record[second]].own_pass);
  REQUIRE(p.check_reads.size() == 2);
  CHECK((p.check_reads[0].offset == 64 && p.check_reads[0].size == 16));
  CHECK((p.check_reads[1].offset == 80 + 1440 && p.check_reads[1].size == 40));
  CHECK(p.bytes_in == 4 * 30 * 32 + 56);
}

TEST_CASE("bytes of a record that no tensor wants are read for its checksum") {
  Example e;
  const uint32_t record = e.record(100, 4 * 30 * 20 + 24);
  e.tensor({30, 20}, [&] { e.columns(record, 100 + 8, 30, 20, 0, 20); });
  const plan::Plan p = e.plan();
  CHECK(!p.checks[0].own_pass);
  REQUIRE(p.check_reads.size() == 2);
  CHECK((p.check_reads[0].offset == 100 && p.check_reads[0].size == 8));
  CHECK((p.check_reads[1].offset == 108 + 2400 && p.check_reads[1].size == 16));
}

TEST_CASE("a transpose is checked on the way") {
  Example e;
  const uint32_t record = e.record(0, 4 * 100 * 50);
  e.tensor({100, 50}, [&] {
    const Axis box[] = {{100, 0, 100, 1}, {50, 0, 50, 100}};
    e.catalog.add_piece(e.catalog.records[record].file, record, 0, box);
  });
  CHECK(!e.plan().checks[0].own_pass);
  CHECK(e.plan().check_reads.empty());
}

TEST_CASE("what goes to its places in runs of a few bytes is read once more for its checksum") {
  for (const auto& [width, own_pass] : {std::pair<int64_t, bool>{16, false}, {15, true}}) {
    Example e;
    const int64_t columns = 2 * width;
    const uint32_t record = e.record(0, 4 * 30 * columns);
    e.tensor({30, columns}, [&, w = width] { e.columns(record, 0, 30, 2 * w, 0, 2 * w); });
    // Two ranks hold half of the columns each.
    e.layout.shards.clear();
    e.layout.pieces.clear();
    e.layout.holes.clear();
    for (int64_t rank = 0; rank < 2; ++rank) {
      e.layout.pieces.push_back({0, static_cast<uint32_t>(e.layout.axes.size()), 2});
      e.layout.axes.push_back({30, 0, 30, width});
      e.layout.axes.push_back({columns, rank * width, width, 1});
      e.layout.shards.push_back({0, 30 * width, static_cast<uint32_t>(rank), 1});
      e.layout.holes.push_back(
          {static_cast<uint32_t>(rank), 0, rank * 120 * width, 0, 30 * width, DType::kF32});
    }
    CHECK(e.plan().checks[0].own_pass == own_pass);
  }
}

TEST_CASE("what is read twice, or has gaps inside a piece, is read once more for its checksum") {
  Example twice;
  const uint32_t shared = twice.record(0, 4 * 600);
  for (int i = 0; i < 2; ++i) twice.tensor({30, 20}, [&] { twice.columns(shared, 0, 30, 20, 0, 20); });
  CHECK(twice.plan().checks[0].own_pass);

  Example gaps;
  const uint32_t wide = gaps.record(0, 4 * 30 * 50);
  gaps.tensor({30, 20}, [&] {
    const Axis box[] = {{30, 0, 30, 50}, {20, 0, 20, 1}};
    gaps.catalog.add_piece(gaps.catalog.records[wide].file, wide, 0, box);
  });
  CHECK(gaps.plan().checks[0].own_pass);
}

TEST_CASE("blocks that take turns in a record are checked on the way if they fill it up") {
  // Of each of 5 heads 12 rows of q, then of k, then of v, as one fused weight has them.
  struct Part {
    int64_t first, rows;
  };
  const auto fused = [](std::initializer_list<Part> parts) {
    Example e;
    const uint32_t record = e.record(40, 4 * 5 * 36 * 8 + 16);
    for (const Part& part : parts)
      e.tensor({5, part.rows, 8}, [&] {
        const Axis box[] = {{5, 0, 5, 36 * 8}, {part.rows, 0, part.rows, 8}, {8, 0, 8, 1}};
        e.catalog.add_piece(e.catalog.records[record].file, record, 40 + 4 * 8 * part.first, box);
      });
    return e.plan();
  };
  const plan::Plan whole = fused({{12, 12}, {0, 12}, {24, 12}});
  CHECK(!whole.checks[0].own_pass);
  REQUIRE(whole.check_reads.size() == 1);  // what lies behind them
  CHECK((whole.check_reads[0].offset == 40 + 4 * 5 * 36 * 8 && whole.check_reads[0].size == 16));
  CHECK(fused({{0, 12}, {24, 12}}).checks[0].own_pass);            // no k
  CHECK(fused({{0, 12}, {12, 12}}).checks[0].own_pass);            // no v
  CHECK(fused({{0, 12}, {11, 12}, {23, 13}}).checks[0].own_pass);  // a row twice
  CHECK(fused({{0, 12}, {12, 11}, {24, 12}}).checks[0].own_pass);  // a row of k is missing
  CHECK(fused({{0, 12}, {0, 12}, {12, 12}}).checks[0].own_pass);   // as many bytes as all, but q twice
}
