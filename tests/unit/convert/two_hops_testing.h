// Checkpoints in memory over two layouts, for the property test: what a layout gives each rank is cut over
// ZeRO ranks into files, written by the executor, and read again as fragments.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/exec/executor.h"
#include "lib/layout/distribute.h"
#include "tests/unit/exec/naive_copier.h"
#include "tests/unit/layout/assemble_testing.h"
#include "tests/unit/layout/expression_testing.h"

namespace uckpt::testing {

using layout::testing::Held;
using layout::testing::Sampler;

struct Silent : Progress {
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t) override {}
  void end() override {}
  void warn(std::string_view) override {}
};

class MemoryOutput : public Output {
 public:
  const std::string& path() const override { return path_; }
  std::string add(std::string_view) override {
    files.emplace_back();
    return "";
  }
  void preallocate(uint32_t file, int64_t size) override { files[file].assign(static_cast<size_t>(size), 0); }
  void write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) override {
    std::copy(bytes.begin(), bytes.end(), files.at(file).begin() + offset);
  }
  void read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const override {
    std::copy_n(files.at(file).begin() + offset, out.size(), out.begin());
  }
  bool is_direct() const override { return false; }
  void start_writeback(uint32_t, int64_t, int64_t) override {}
  void sync() const override {}
  void commit(bool) override {}
  void keep(bool) override {}
  std::vector<Bytes> files;

 private:
  std::string path_ = "memory";
};

// A tensor of two dims under the rules of one layout.
struct RuledTensor {
  std::string name;
  std::vector<Sampler::Node> rows, columns;
};

// One layout of the model: its mesh, the text of its rules, and how ZeRO cuts what a rank has.
struct RandomLayout {
  Coordinate mesh;
  std::vector<RuledTensor> tensors;
  std::string text;
  int64_t zero_ranks = 1;
  bool by_parameter = false;  // as stage 3: each shard by itself; else all of them as one flat buffer
};

// Where the ranges of a rank's shards lie.
struct Range {
  uint32_t file;
  int64_t offset, first, count;  // bytes; elements of the shard
};
struct Written {
  TargetLayout layout;
  std::vector<std::vector<std::vector<Range>>> ranges;  // by rank, shard
};

class Cutter {
 public:
  Cutter(const Shards& shards, const RandomLayout& how) : shards_(shards), how_(how) {}

  Written run() {
    for (const RankShards& rank : shards_.ranks) cut(rank);
    std::stable_sort(out_.layout.holes.begin(), out_.layout.holes.end(), [](const Hole& a, const Hole& b) {
      return a.file != b.file ? a.file < b.file : a.offset < b.offset;
    });
    return std::move(out_);
  }

 private:
  void cut(const RankShards& rank) {
    const auto zero = static_cast<size_t>(how_.zero_ranks);
    const auto first_file = static_cast<uint32_t>(out_.layout.files.size());
    for (size_t z = 0; z < zero; ++z) out_.layout.files.push_back({cat("f", first_file + z), 0, {}, {}});
    int64_t total = 0;
    for (const Shard& s : rank.shards) total += numel_of(s.shape);
    const int64_t partition = ceil_div(total, 2 * how_.zero_ranks) * 2;
    std::vector<int64_t> filled(zero, 0);
    int64_t at = 0;
    auto& ranges = out_.ranges.emplace_back();
    for (const Shard& s : rank.shards) {
      const int64_t numel = numel_of(s.shape), share = ceil_div(numel, how_.zero_ranks);
      const uint32_t shard = add_shard(s, numel);
      auto& own = ranges.emplace_back();
      for (size_t z = 0; z < zero; ++z) {
        const auto number = static_cast<int64_t>(z);
        const int64_t begin = how_.by_parameter ? number * share : number * partition - at;
        const int64_t end = begin + (how_.by_parameter ? share : partition);
        const int64_t from = std::clamp<int64_t>(begin, 0, numel), to = std::clamp<int64_t>(end, 0, numel);
        if (from < to) {
          const int64_t place = how_.by_parameter ? filled[z] : from - begin;
          own.push_back({first_file + static_cast<uint32_t>(z), place * 4, from, to - from});
          out_.layout.holes.push_back(
              {shard, own.back().file, own.back().offset, from, to - from, DType::kF32, false});
        }
        filled[z] += share;
      }
      at += numel;
    }
    for (size_t z = 0; z < zero; ++z)
      out_.layout.files[first_file + z].size = 4 * (how_.by_parameter ? filled[z] : partition);
  }

  uint32_t add_shard(const Shard& s, int64_t numel) {
    TargetLayout& layout = out_.layout;
    const auto boxes = shards_.boxes_of(s);
    layout.shards.push_back({s.tensor, numel, static_cast<uint32_t>(layout.pieces.size()),
                             static_cast<uint32_t>(boxes.size()), s.is_padded, s.factor, s.summand});
    for (const ShardBox& box : boxes) {
      layout.pieces.push_back(
          {box.offset, static_cast<uint32_t>(layout.axes.size()), box.rank, !box.is_primary});
      const auto axes = shards_.axes_of(box);
      layout.axes.insert(layout.axes.end(), axes.begin(), axes.end());
    }
    return static_cast<uint32_t>(layout.shards.size() - 1);
  }

  const Shards& shards_;
  const RandomLayout& how_;
  Written out_;
};

// Plans and copies; all copies in the input must agree.
inline std::vector<Bytes> carry_out(const Catalog& catalog, TargetLayout& layout, int threads) {
  const plan::Plan plan = plan::make_plan(catalog, layout, {});
  MemoryOutput output;
  exec::preallocate(layout, output, threads);
  Silent progress;
  const StopFlag stop{false};
  const exec::Outcome outcome =
      exec::run(catalog, layout, plan, output, {threads, 256, 512, 256}, {}, progress, stop);
  for (size_t i = 0; i < plan.compared.size(); ++i) CHECK(outcome.differences[i].count == 0);
  return std::move(output.files);
}

}  // namespace uckpt::testing
