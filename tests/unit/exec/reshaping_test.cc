#include "lib/exec/reshaping.h"

#include <doctest/doctest.h>

#include <string>

#include "lib/io/input.h"

using namespace uckpt;
using exec::Flow;
using exec::Reshaping;

namespace {

// Tensors in a file each, and what is written of them. Numbers in the tests are reckoned by hand.
struct Example {
  Catalog catalog;
  TargetLayout layout;
  plan::Plan plan;

  Example() { layout.files.push_back({"", 0, {}, {}}); }

  FileId file(int64_t bytes) {
    return catalog.add_file(std::make_shared<MemorySource>("f", Bytes(static_cast<size_t>(bytes))));
  }
  // Of f32, with these strides in elements.
  Tensor& tensor(const Shape& shape, const std::vector<int64_t>& strides, uint8_t flags = kPlain) {
    int64_t last = 0;
    for (size_t d = 0; d < shape.size(); ++d) last += (shape[d] - 1) * strides[d];
    const FileId f = file(4 * (last + 1));
    Tensor t{};
    t.name = "t" + std::to_string(catalog.tensors.size());
    t.dtype = DType::kF32;
    t.shape = shape;
    const uint32_t mark = catalog.piece_mark();
    catalog.add_whole(f, kNoRecord, 0, shape, strides, flags);
    t.pieces = catalog.pieces_since(mark);
    catalog.tensors.push_back(t);
    return catalog.tensors.back();
  }
  uint32_t shard(uint32_t tensor) { return layout.add_whole_shard(catalog, tensor); }
  // The next hole of the one file.
  void hole(uint32_t shard, int64_t first, int64_t count, DType dtype, bool is_copy = false) {
    int64_t& size = layout.files[0].size;
    layout.holes.push_back({shard, 0, size, first, count, dtype, is_copy});
    size += layout.holes.back().bytes();
  }
  // All of a tensor of f32 as such.
  void whole(uint32_t tensor) {
    const uint32_t s = shard(tensor);
    hole(s, 0, layout.shards[s].numel, DType::kF32);
  }
  exec::Reshapings reshapings() {
    plan = plan::make_plan(catalog, layout, {});
    return {catalog, layout, plan};
  }
};

// What one tensor of this shape and these strides goes through.
Reshaping of_view(const Shape& shape, const std::vector<int64_t>& strides) {
  Example e;
  e.tensor(shape, strides);
  e.whole(0);
  return e.reshapings().of(0);
}

}  // namespace

TEST_CASE("runs and long rows are copied, elements that lie apart are strided") {
  using enum Reshaping;
  CHECK(of_view({40, 50}, {50, 1}) == kCopied);         // one run
  CHECK(of_view({1}, {7}) == kCopied);                  // one element
  CHECK(of_view({0, 5}, {5, 1}) == kCopied);            // none
  CHECK(of_view({40, 50}, {1, 40}) == kStrided);        // a transpose
  CHECK(of_view({40, 50}, {100, 2}) == kStrided);       // every other element
  CHECK(of_view({40, 64}, {100, 1}) == kCopied);        // rows of 256 bytes
  CHECK(of_view({40, 63}, {100, 1}) == kStrided);       // of 252
  CHECK(of_view({4, 8, 16}, {16, 64, 1}) == kStrided);  // two dims exchanged, rows of 64 bytes
  CHECK(of_view({4, 8, 64}, {64, 256, 1}) == kCopied);  // and of 256
}

TEST_CASE("interleaved columns of two files are strided, rows of two files copied") {
  for (const bool columns : {false, true}) {
    Example e;
    const FileId a = e.file(400), b = e.file(400);
    Tensor t{};
    t.dtype = DType::kF32;
    t.shape = columns ? Shape{20, 10} : Shape{40, 5};
    for (const FileId f : {a, b}) {
      const int64_t second = f == b ? 1 : 0;
      const Axis of_columns[] = {{20, 0, 20, 5}, {10, 5 * second, 5, 1}};
      const Axis of_rows[] = {{40, 20 * second, 20, 5}, {5, 0, 5, 1}};
      e.catalog.add_piece(f, kNoRecord, 0, columns ? of_columns : of_rows);
    }
    t.pieces = {0, 2};
    e.catalog.tensors.push_back(t);
    e.whole(0);
    const exec::Reshapings r = e.reshapings();
    CHECK(r.of(0) == (columns ? Reshaping::kStrided : Reshaping::kCopied));
    CHECK(r.suits_device(0) == columns);
    CHECK(r.work()[r.of(0)] == Flow{800, 800});
  }
}

TEST_CASE("most bytes of a shard decide, from half of them on") {
  for (const int64_t dense : {100, 101}) {  // elements that lie in one run, beside 100 that do not
    Example e;
    const int64_t n = dense + 100;
    const FileId a = e.file(4 * dense), b = e.file(800);
    Tensor t{};
    t.dtype = DType::kF32;
    t.shape = {n};
    e.catalog.add_flat(a, kNoRecord, 0, n, 0, dense);
    const Axis apart[] = {{n, dense, 100, 2}};
    e.catalog.add_piece(b, kNoRecord, 0, apart);
    t.pieces = {0, 2};
    e.catalog.tensors.push_back(t);
    e.whole(0);
    CHECK(e.reshapings().of(0) == (dense == 100 ? Reshaping::kStrided : Reshaping::kCopied));
  }
}

TEST_CASE("a hole of another type is cast, the other holes of the shard are what they were") {
  Example e;
  e.tensor({30, 40}, {40, 1});
  e.tensor({30, 40}, {1, 30});
  for (uint32_t t = 0; t < 2; ++t) {
    const uint32_t s = e.shard(t);
    e.hole(s, 0, 500, DType::kF32);
    e.hole(s, 500, 700, DType::kF32);
    e.hole(s, 0, 1200, DType::kBF16, true);
  }
  const exec::Reshapings r = e.reshapings();
  using enum Reshaping;
  const Reshaping want[] = {kCopied, kCopied, kCast, kStrided, kStrided, kCast};
  for (uint32_t h = 0; h < 6; ++h) {
    CAPTURE(h);
    CHECK(r.of(h) == want[h]);
    CHECK(r.suits_device(h) == (h > 1));
  }
  CHECK(r.work()[kCopied] == Flow{4800, 4800});
  CHECK(r.work()[kStrided] == Flow{4800, 4800});
  CHECK(r.work()[kCast] == Flow{9600, 4800});
  CHECK(r.work()[kMean] == Flow{});
  CHECK(r.work().for_device() == Flow{14400, 9600});
  CHECK(r.work().all() == Flow{e.plan.bytes_in, e.plan.bytes_out});
}

TEST_CASE("bytes in another order, conjugates and negatives are cast") {
  Example e;
  e.tensor({300}, {1}, kByteSwapped);
  e.tensor({30, 40}, {1, 30}, kByteSwapped);
  e.whole(0);
  e.whole(1);
  const exec::Reshapings r = e.reshapings();
  CHECK(r.of(0) == Reshaping::kCast);
  CHECK(r.of(1) == Reshaping::kCast);
}

TEST_CASE("means, factors and summands are means, and their parts are read") {
  Example e;
  e.tensor({100}, {1});
  for (int part = 0; part < 2; ++part) {
    const uint32_t mark = e.catalog.piece_mark();
    e.catalog.add_flat(e.file(400), kNoRecord, 0, 100, 0, 100);
    e.catalog.tensors[0].averaged_with.push_back(e.catalog.pieces_since(mark));
  }
  e.tensor({100}, {1}).factor = 2;
  e.tensor({100}, {1}).summand = 1;
  e.tensor({100}, {1});
  for (uint32_t t = 0; t < 4; ++t) e.whole(t);
  e.layout.shards[3].factor = 0.5;
  const exec::Reshapings r = e.reshapings();
  for (uint32_t h = 0; h < 4; ++h) CHECK(r.of(h) == Reshaping::kMean);
  CHECK(r.work()[Reshaping::kMean] == Flow{1200 + 3 * 400, 4 * 400});
  CHECK(r.work().all() == Flow{e.plan.bytes_in, e.plan.bytes_out});
}

TEST_CASE("what is compared is read once, for the first hole of its elements") {
  Example e;
  Tensor& t = e.tensor({100}, {1});
  const uint32_t mark = e.catalog.piece_mark();
  e.catalog.add_flat(e.file(200), kNoRecord, 0, 100, 0, 100);
  t.copies.push_back({e.catalog.pieces_since(mark), DType::kBF16, true, "module weight"});
  const uint32_t s = e.shard(0);
  e.hole(s, 0, 25, DType::kF32);
  e.hole(s, 25, 75, DType::kF32);
  e.hole(s, 0, 100, DType::kBF16, true);
  const exec::Reshapings r = e.reshapings();
  CHECK(r.work()[Reshaping::kCopied] == Flow{400 + 200, 400});
  CHECK(r.work()[Reshaping::kCast] == Flow{400, 200});
  CHECK(r.work().all() == Flow{e.plan.bytes_in, e.plan.bytes_out});
}
