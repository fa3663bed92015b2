#include "lib/exec/executor.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "lib/base/checked.h"
#include "lib/kernels/crc.h"
#include "tests/unit/exec/converted.h"
#include "tests/unit/exec/naive_copier.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {

using test::flat_layout;
using test::Quiet;
using test::RandomCheckpoint;
using test::read_file;
using test::Scratch;

// With a checksum for each tensor.
TargetLayout summed_layout(const Catalog& c) {
  TargetLayout layout = flat_layout(c);
  for (uint32_t h = 0; h < layout.holes.size(); ++h)
    layout.checksums.push_back({0, layout.holes[h].offset, layout.holes[h].bytes(), h, 1});
  return layout;
}

void check_conversion(const Catalog& c, const fs::path& path, int threads, int64_t max_mem) {
  const TargetLayout layout = summed_layout(c);
  const exec::Buffers buffers = exec::size_buffers({.threads = threads, .max_mem = max_mem});
  CHECK(buffers.total() <= max_mem);
  const auto [file, outcome] = test::convert_to(path, c, layout, buffers);
  for (size_t i = 0; i < c.tensors.size(); ++i) {
    const Bytes want = test::naive_assemble(c, c.tensors[i]);
    const ByteSpan have(file.data() + layout.holes[i].offset, want.size());
    CAPTURE(c.tensors[i].name);
    REQUIRE(std::equal(have.begin(), have.end(), want.begin()));
    REQUIRE(outcome.digests[i] == kernels::Crc64::finish(kernels::crc64_raw(want), want.size()));
    REQUIRE(outcome.checksums[i] == kernels::Crc32::finish(kernels::crc32_raw(want), want.size()));
  }
}

}  // namespace

TEST_CASE("random checkpoints equal the naive copier, on any number of threads and any budget") {
  Scratch s;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    const Catalog c = RandomCheckpoint(seed, seed % 5 == 0 ? 60 : 12).make(seed % 5 == 0 ? 6 : 30);
    check_conversion(c, s.path / "out", static_cast<int>(1 + seed % 4),
                     seed % 2 == 0 ? int64_t{64} << 20 : int64_t{800} << 10);
  }
}

TEST_CASE("checksums are of what is written, not of what was read") {
  Scratch s;
  for (uint32_t seed = 200; seed < 210; ++seed) {
    CAPTURE(seed);
    const Catalog c = RandomCheckpoint(seed, 12).make(20);
    TargetLayout layout = summed_layout(c);
    for (TargetShard& shard : layout.shards)
      if (c.tensors[shard.tensor].dtype == DType::kF32) shard.factor = 2;
    const exec::Buffers buffers = exec::size_buffers({.threads = 2, .max_mem = int64_t{64} << 20});
    const auto [file, outcome] = test::convert_to(s.path / "out", c, layout, buffers);
    for (size_t h = 0; h < layout.holes.size(); ++h) {
      const auto size = static_cast<size_t>(layout.holes[h].bytes());
      const ByteSpan have(file.data() + layout.holes[h].offset, size);
      CHECK(outcome.checksums[h] == kernels::Crc32::finish(kernels::crc32_raw(have), size));
    }
  }
}

TEST_CASE("a flipped bit anywhere in a used record is found") {
  Scratch s;
  for (uint32_t seed = 100; seed < 130; ++seed) {
    Catalog c = RandomCheckpoint(seed, 12).make(8);
    std::mt19937 rng(seed);
    const Record& r = c.records[rng() % c.records.size()];
    if (r.size == 0) continue;
    Bytes bytes = c.files[r.file]->read_range(0, c.files[r.file]->size());
    bytes[static_cast<size_t>(r.offset) + rng() % static_cast<size_t>(r.size)] ^=
        static_cast<uint8_t>(1 << rng() % 8);
    c.files[r.file] = std::make_shared<MemorySource>("changed", bytes);
    const bool used = std::any_of(c.pieces.begin(), c.pieces.end(), [&](const Piece& p) {
      int64_t n = 1;
      for (const Axis& a : c.axes_of(p)) n *= a.extent;
      return p.file == r.file && n > 0;
    });
    std::string code;
    try {
      check_conversion(c, s.path / "out", 2, int64_t{64} << 20);
    } catch (const Error& e) {
      code = e.code();
    }
    CHECK(code == (used ? "zip.crc" : ""));
    CHECK(!fs::exists(s.path / ".out.uckpt-tmp"));
  }
}

TEST_CASE("copies are compared, whatever their pieces") {
  Scratch s;
  Catalog c;
  const int64_t n = 3000;
  std::vector<float> master(n);
  std::vector<uint16_t> module(n);
  for (int64_t i = 0; i < n; ++i) {
    master[static_cast<size_t>(i)] = static_cast<float>(i % 256);
    module[static_cast<size_t>(i)] =
        static_cast<uint16_t>(std::bit_cast<uint32_t>(master[static_cast<size_t>(i)]) >> 16);
  }
  module[1234] ^= 1;
  const auto bytes_of_vector = [](const auto& v) {
    return Bytes(reinterpret_cast<const uint8_t*>(v.data()),
                 reinterpret_cast<const uint8_t*>(v.data() + v.size()));
  };
  const FileId a = c.add_file(std::make_shared<MemorySource>("master", bytes_of_vector(master)));
  const FileId b = c.add_file(std::make_shared<MemorySource>("module", bytes_of_vector(module)));
  Tensor t{};
  t.name = "w", t.state = "fp32", t.dtype = DType::kF32, t.shape = {50, 60};
  uint32_t mark = c.piece_mark();
  c.add_flat(a, kNoRecord, 0, n, 0, 1111);
  c.add_flat(a, kNoRecord, 4444, n, 1111, n - 1111);
  t.pieces = c.pieces_since(mark);
  mark = c.piece_mark();
  c.add_whole(b, kNoRecord, 0, t.shape, std::vector<int64_t>{60, 1});
  t.copies.push_back({c.pieces_since(mark), DType::kBF16, true, "module weight"});
  c.tensors.push_back(t);

  const auto outcome = test::convert_to(s.path / "out", c, flat_layout(c),
                                        exec::size_buffers({.threads = 2, .max_mem = 64 << 20}))
                           .outcome;
  CHECK(outcome.differences[0].count == 1);
  CHECK(outcome.differences[0].first == 1234);
}

TEST_CASE("a stop leaves nothing and says it can be resumed") {
  Scratch s;
  const Catalog c = RandomCheckpoint(7, 12).make(20);
  const TargetLayout layout = flat_layout(c);
  const plan::Plan plan = plan::make_plan(c, layout, {});
  Quiet progress;
  const StopFlag stop{true};
  int code = 0;
  try {
    const Claim claim((s.path / "out").string());
    const auto output = make_output(claim, false, true, LeftOver::kDiscarded);
    exec::run(c, layout, plan, *output, exec::size_buffers({.threads = 2, .max_mem = 64 << 20}), {}, progress,
              stop);
  } catch (const Error& e) {
    code = e.exit_code();
  }
  CHECK(code == 3);
  CHECK(fs::is_empty(s.path));
}

TEST_CASE("pieces that do not tile their tensor are refused by name") {
  Catalog c;
  c.path = "ckpt";
  const FileId f = c.add_file(std::make_shared<MemorySource>("f", Bytes(400)));
  Tensor t{};
  t.name = "w", t.state = "fp32", t.dtype = DType::kF32, t.shape = {10, 10};
  const uint32_t mark = c.piece_mark();
  c.add_flat(f, kNoRecord, 0, 100, 0, 60);
  c.add_flat(f, kNoRecord, 0, 100, 61, 39);
  t.pieces = c.pieces_since(mark);
  c.tensors.push_back(t);
  try {
    plan::make_plan(c, flat_layout(c), {});
    FAIL("a hole was not found");
  } catch (const Error& e) {
    CHECK(e.line() ==
          "ckpt::fp32/w: the pieces in the input do not cover the tensor: expected 100 elements, found 99");
  }
}

TEST_CASE("a budget too small to work in is refused") {
  CHECK_THROWS_AS(exec::size_buffers({.threads = 8, .max_mem = 100 << 10}), Error);
}
