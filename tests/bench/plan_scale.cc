// How long planning takes and how much memory it needs, by the number of fragments: ranks × parameters ×
// states of a ZeRO-3 checkpoint that exists only as a catalog. Usage: plan_scale [RANKS [PARAMETERS]]
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "lib/base/checked.h"
#include "lib/plan/plan.h"

using namespace uckpt;

namespace {

Catalog zero3_catalog(int64_t ranks, int64_t parameters) {
  Catalog c;
  const Shape shape = {4096, 1021};
  const int64_t numel = numel_of(shape), share = ceil_div(numel, ranks);
  for (int64_t p = 0; p < parameters; ++p) {
    for (const char* state : {"fp32", "exp_avg", "exp_avg_sq"}) {
      Tensor t{};
      t.name = "layers." + std::to_string(p) + ".weight";
      t.state = state;
      t.dtype = DType::kF32;
      t.shape = shape;
      const uint32_t mark = c.piece_mark();
      for (int64_t r = 0; r < ranks; ++r) {
        const int64_t n = std::min(share, numel - r * share);
        if (n > 0) c.add_flat(static_cast<FileId>(r), kNoRecord, p * share * 4, numel, r * share, n);
      }
      t.pieces = c.pieces_since(mark);
      c.tensors.push_back(std::move(t));
    }
  }
  return c;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t ranks = argc > 1 ? std::atoll(argv[1]) : 1024,
                parameters = argc > 2 ? std::atoll(argv[2]) : 1000;
  const auto begun = std::chrono::steady_clock::now();
  const Catalog catalog = zero3_catalog(ranks, parameters);
  const double made = seconds_since(begun);
  TargetLayout layout;
  layout.files.push_back({"", 0, {}, {}});
  int64_t& size = layout.files[0].size;
  for (uint32_t i = 0; i < catalog.tensors.size(); ++i) {
    const uint32_t shard = layout.add_whole_shard(catalog, i);
    layout.holes.push_back({shard, 0, size, 0, layout.shards[shard].numel, catalog.tensors[i].dtype});
    size += layout.holes.back().bytes();
  }
  const auto planning = std::chrono::steady_clock::now();
  const plan::Plan plan = plan::make_plan(catalog, layout, {});
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "%zu fragments: catalog %.2f s, plan %.2f s, %zu moves, plan %.0f B a fragment, peak %.0f MiB\n",
      catalog.pieces.size(), made, seconds_since(planning), plan.moves.size(),
      static_cast<double>(plan.metadata_bytes()) / static_cast<double>(catalog.pieces.size()),
      static_cast<double>(usage.ru_maxrss) / 1024);
}
