#include "lib/exec/tensor_digests.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "lib/exec/executor.h"
#include "lib/exec/scan.h"
#include "lib/io/input.h"
#include "lib/kernels/cast.h"
#include "tests/unit/exec/naive_copier.h"
#include "tests/unit/exec/quiet_progress.h"

using namespace uckpt;

namespace {

// CRC-64/XZ bit by bit, from its definition.
uint64_t naive_crc64(ByteSpan bytes) {
  uint64_t crc = ~uint64_t{0};
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0xC96C5795D7870F42u : 0);
  }
  return ~crc;
}

using test::Quiet;

struct Nowhere : Output {
  std::string name;
  const std::string& path() const override { return name; }
  std::string add(std::string_view) override { return name; }
  void preallocate(uint32_t, int64_t) override {}
  void write_at(uint32_t, int64_t, std::span<const uint8_t>) override {}
  void read_at(uint32_t, int64_t, std::span<uint8_t>) const override {}
  bool is_direct() const override { return false; }
  void start_writeback(uint32_t, int64_t, int64_t) override {}
  void sync() const override {}
  void commit(bool) override {}
  void keep(bool) override {}
};

class ScatteredOutput {
 public:
  explicit ScatteredOutput(uint32_t seed) : rng_(seed) {}

  void add_tensor(DType dtype, DType written) {
    Tensor t{};
    t.name = "t" + std::to_string(catalog.tensors.size());
    t.state = "param";
    t.dtype = dtype;
    for (int64_t d = below(4); d >= 0; --d) t.shape.push_back(1 + below(9));
    Bytes bytes(static_cast<size_t>(numel_of(t.shape) * item_size(dtype)));
    for (auto& b : bytes) b = static_cast<uint8_t>(rng_());
    const FileId file = catalog.add_file(std::make_shared<MemorySource>(t.name, bytes));
    const uint32_t mark = catalog.piece_mark();
    catalog.add_flat(file, kNoRecord, 0, numel_of(t.shape), 0, numel_of(t.shape));
    t.pieces = catalog.pieces_since(mark);
    catalog.tensors.push_back(t);
    cut(static_cast<uint32_t>(catalog.tensors.size() - 1), {}, written);
  }

  Catalog catalog;
  TargetLayout layout;

 private:
  int64_t below(int64_t n) { return static_cast<int64_t>(rng_() % static_cast<uint64_t>(n)); }

  // Each dim in up to three intervals; each box of them is a shard, its dims in memory in any order.
  void cut(uint32_t tensor, std::vector<Axis> axes, DType written) {
    const Shape& shape = catalog.tensors[tensor].shape;
    if (axes.size() == shape.size()) return add_shard(tensor, axes, written);
    const int64_t size = shape[axes.size()];
    for (int64_t start = 0; start < size;) {
      const int64_t extent = std::min(size - start, 1 + below(size));
      auto further = axes;
      further.push_back({size, start, extent, 0});
      cut(tensor, further, written);
      start += extent;
    }
  }

  void add_shard(uint32_t tensor, std::vector<Axis> axes, DType written) {
    std::vector<size_t> order(axes.size());
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), rng_);
    int64_t numel = 1;
    for (const size_t d : order) {
      axes[d].stride = numel;
      numel *= axes[d].extent;
    }
    const auto shard = static_cast<uint32_t>(layout.shards.size());
    layout.shards.push_back({tensor, numel, static_cast<uint32_t>(layout.pieces.size()), 1});
    layout.pieces.push_back(
        {0, static_cast<uint32_t>(layout.axes.size()), static_cast<uint8_t>(axes.size())});
    layout.axes.insert(layout.axes.end(), axes.begin(), axes.end());
    if (layout.files.empty()) layout.files.push_back({"", 0, {}, {}});
    for (int64_t first = 0; first < numel;) {
      const int64_t count = std::min(numel - first, 1 + below(numel));
      layout.holes.push_back({shard, 0, layout.files[0].size, first, count, written});
      layout.files[0].size += layout.holes.back().bytes();
      first += count;
    }
  }

  std::mt19937 rng_;
};

}  // namespace

TEST_CASE("a tensor's digest does not depend on how it is scattered") {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    ScatteredOutput made(seed);
    made.add_tensor(DType::kF32, DType::kF32);
    made.add_tensor(DType::kU8, DType::kU8);
    made.add_tensor(DType::kF32, DType::kBF16);
    made.add_tensor(DType::kC128, DType::kC128);
    made.add_tensor(DType::kF16, DType::kF64);
    const Catalog& c = made.catalog;
    const plan::Plan plan = plan::make_plan(c, made.layout, {});
    Nowhere output;
    Quiet progress;
    const StopFlag stop{false};
    exec::RunOptions options;
    options.tensor_digests = true;
    const exec::Outcome outcome =
        exec::run(c, made.layout, plan, output, {2, 64 + 16 * (seed % 5), 128 + 32 * (seed % 3), 256},
                  options, progress, stop);
    REQUIRE(outcome.tensor_digests.size() == c.tensors.size());
    for (uint32_t t = 0; t < c.tensors.size(); ++t) {
      const exec::TensorDigest& digest = outcome.tensor_digests[t];
      Bytes bytes = test::naive_assemble(c, c.tensors[t]);
      if (digest.dtype != c.tensors[t].dtype) {
        Bytes cast(static_cast<size_t>(numel_of(c.tensors[t].shape) * item_size(digest.dtype)));
        kernels::cast(bytes.data(), c.tensors[t].dtype, cast.data(), digest.dtype,
                      numel_of(c.tensors[t].shape));
        bytes = cast;
      }
      CHECK(digest.tensor == t);
      CHECK(digest.crc64 == naive_crc64(bytes));
    }
  }
}

TEST_CASE("a scan sees every byte once, and tells the same digests") {
  ScatteredOutput made(3);
  for (int i = 0; i < 20; ++i)
    made.add_tensor(i % 2 ? DType::kF32 : DType::kI16, i % 2 ? DType::kF32 : DType::kI16);
  const Catalog& c = made.catalog;
  std::vector<uint32_t> tensors(c.tensors.size());
  std::iota(tensors.begin(), tensors.end(), 0u);
  const exec::WholeTensors whole = exec::whole_tensors(c, tensors, {});
  for (const int threads : {1, 3}) {
    std::vector<Bytes> seen(tensors.size());
    for (uint32_t t = 0; t < tensors.size(); ++t)
      seen[t].resize(static_cast<size_t>(numel_of(c.tensors[t].shape) * item_size(c.tensors[t].dtype)));
    std::atomic<int64_t> bytes{0};
    Quiet progress;
    const StopFlag stop{false};
    const exec::Buffers buffers{threads, 96, 192, 256};
    const exec::Scanned found = exec::scan(
        whole, buffers, {},
        [&]() -> exec::ScanVisitor {
          return [&](const exec::ScanRange& r) {
            std::copy(r.bytes.begin(), r.bytes.end(),
                      seen[r.at].begin() + r.begin * item_size(c.tensors[r.at].dtype));
            bytes += static_cast<int64_t>(r.bytes.size());
          };
        },
        progress, stop);
    CHECK(bytes == whole.plan.bytes_out);
    for (uint32_t t = 0; t < tensors.size(); ++t) {
      const Bytes want = test::naive_assemble(c, c.tensors[t]);
      CHECK(seen[t] == want);
      CHECK(found.digests[t] == naive_crc64(want));
      Bytes part(want.size() / 2 / 4 * 4);
      exec::RangeReader(whole, buffers).read(t, 0, part);
      CHECK(std::equal(part.begin(), part.end(), want.begin()));
    }
  }
}
