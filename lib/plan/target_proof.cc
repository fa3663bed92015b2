#include "lib/plan/target_proof.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/plan/box.h"

namespace uckpt::plan {

namespace {

class Proof {
 public:
  Proof(const Catalog& catalog, const TargetLayout& target) : catalog_(catalog), target_(target) {}

  void run() {
    by_tensor();
    for (uint32_t s = 0; s < target_.shards.size(); ++s) prove_inside(target_.shards[s]);
    by_shard();
    by_file();
  }

 private:
  [[noreturn]] void fail(uint32_t tensor, std::string what) const {
    throw refused("plan.target", cat("the output is not laid out whole: ", what))
        .in_file(catalog_.path)
        .in_tensor(catalog_.tensors[tensor].path());
  }

  std::span<const Axis> axes_of(const TargetPiece& piece) const {
    return {target_.axes.data() + piece.axes_at, piece.rank};
  }

  std::span<const TargetPiece> pieces_of(const TargetShard& shard) const {
    return std::span(target_.pieces).subspan(shard.first_piece, shard.pieces);
  }

  void by_tensor() const {
    std::vector<uint32_t> order(target_.shards.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return target_.shards[a].tensor < target_.shards[b].tensor;
    });
    for (size_t i = 0; i < order.size();) {
      const uint32_t tensor = target_.shards[order[i]].tensor;
      std::vector<Box> boxes;
      for (; i < order.size() && target_.shards[order[i]].tensor == tensor; ++i)
        for (const TargetPiece& p : pieces_of(target_.shards[order[i]])) {
          if (p.is_copy) continue;
          Box box = coarsen(0, axes_of(p));
          if (box.volume() > 0) boxes.push_back(std::move(box));
        }
      const int64_t numel = units_of(catalog_.tensors[tensor]);
      if (const auto problem = find_cover_problem(boxes, numel))
        fail(tensor, problem->kind == CoverProblem::kFactoring
                         ? "its shards cut the tensor along factorings that do not nest"
                         : cat("expected its shards to have ", numel, " elements, each once, found ",
                               problem->covered));
    }
  }

  // The pieces of a shard as boxes of the shard itself: their strides give the factoring.
  void prove_inside(const TargetShard& shard) const {
    if (shard.pieces == 1 && is_all_of(shard, pieces_of(shard)[0])) return;
    std::vector<Box> boxes;
    int64_t volume = 0;
    for (const TargetPiece& piece : pieces_of(shard)) {
      std::optional<Box> box = in_shard(shard, piece);
      if (!box) return prove_runs(shard);
      volume += box->volume();
      if (box->volume() > 0) boxes.push_back(std::move(*box));
    }
    const auto problem = find_cover_problem(boxes, shard.numel);
    if (!problem) return;
    const bool only_padding = problem->kind == CoverProblem::kHole && volume == problem->covered;
    if (only_padding && shard.is_padded) return;
    fail(shard.tensor, cat("a shard of ", shard.numel, " elements is given ", volume));
  }

  bool is_all_of(const TargetShard& shard, const TargetPiece& piece) const {
    const Box box = coarsen(0, axes_of(piece));
    return piece.offset == 0 && box.volume() == shard.numel &&
           (box.axes.empty() || (box.axes.size() == 1 && box.axes[0].stride == 1));
  }

  // A piece's loops in its shard, by falling stride, those that go on back to back as one; nothing for a
  // piece without elements.
  std::optional<std::vector<Axis>> loops_of(const TargetPiece& piece) const {
    std::vector<Axis> loops;
    for (const Axis& a : axes_of(piece)) {
      if (a.extent == 0) return std::nullopt;
      if (a.extent > 1) loops.push_back(a);
    }
    std::stable_sort(loops.begin(), loops.end(),
                     [](const Axis& a, const Axis& b) { return a.stride > b.stride; });
    for (size_t i = loops.size(); i-- > 1;) {
      if (loops[i - 1].stride != loops[i].stride * loops[i].extent) continue;
      loops[i - 1].stride = loops[i].stride;
      loops[i - 1].extent *= loops[i].extent;
      loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(i));
    }
    return loops;
  }

  // Nothing where the strides do not nest in the shard.
  std::optional<Box> in_shard(const TargetShard& shard, const TargetPiece& piece) const {
    const auto loops = loops_of(piece);
    if (!loops) return Box{0, {{1, 0, 0, 1}}};
    Box box;
    int64_t outer = shard.numel, at = piece.offset;
    for (const Axis& loop : *loops) {
      if (loop.stride <= 0 || outer % loop.stride != 0) return std::nullopt;
      const Axis axis{outer / loop.stride, at / loop.stride, loop.extent, 1};
      if (axis.start + axis.extent > axis.size) return std::nullopt;
      box.axes.push_back(axis);
      at %= loop.stride;
      outer = loop.stride;
    }
    if (at >= outer) fail(shard.tensor, "a piece lies outside its shard");
    if (outer > 1) box.axes.push_back({outer, at, 1, 1});
    return box;
  }

  // The same for shards whose pieces follow no common factoring (blocks with fillers of their own): run by
  // run.
  void prove_runs(const TargetShard& shard) const {
    constexpr int64_t kMostRuns = int64_t{1} << 24;
    std::vector<std::pair<int64_t, int64_t>> runs;  // begin, end
    for (const TargetPiece& piece : pieces_of(shard)) {
      std::optional<std::vector<Axis>> loops = loops_of(piece);
      if (!loops) continue;
      int64_t length = 1;
      if (!loops->empty() && loops->back().stride == 1) {
        length = loops->back().extent;
        loops->pop_back();
      }
      int64_t count = 1;
      for (const Axis& loop : *loops) count = checked_mul(count, loop.extent).value_or(kMostRuns + 1);
      if (count > kMostRuns - static_cast<int64_t>(runs.size()))
        fail(shard.tensor, cat("a shard lies in more than ", kMostRuns, " runs that follow no factoring"));
      for (int64_t n = 0; n < count; ++n) {
        int64_t begin = piece.offset, rest = n;
        for (size_t l = loops->size(); l-- > 0; rest /= (*loops)[l].extent)
          begin += rest % (*loops)[l].extent * (*loops)[l].stride;
        runs.emplace_back(begin, begin + length);
      }
    }
    std::sort(runs.begin(), runs.end());
    int64_t reached = 0, volume = 0;
    for (const auto& [begin, end] : runs) {
      if (begin < reached) fail(shard.tensor, cat("two pieces of a shard meet at element ", begin));
      if (end > shard.numel) fail(shard.tensor, "a piece lies outside its shard");
      volume += end - begin;
      reached = end;
    }
    if (volume != shard.numel && !shard.is_padded)
      fail(shard.tensor, cat("a shard of ", shard.numel, " elements is given ", volume));
  }

  void by_shard() const {
    std::vector<uint32_t> order;
    for (uint32_t h = 0; h < target_.holes.size(); ++h)
      if (!target_.holes[h].is_copy) order.push_back(h);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const Hole &x = target_.holes[a], &y = target_.holes[b];
      return x.shard != y.shard ? x.shard < y.shard : x.first < y.first;
    });
    std::vector<int64_t> reached(target_.shards.size(), 0);
    for (const uint32_t h : order) {
      const Hole& hole = target_.holes[h];
      const TargetShard& shard = target_.shards[hole.shard];
      if (hole.first != reached[hole.shard])
        fail(shard.tensor, cat("expected a range from element ", reached[hole.shard],
                               " of a shard, found one from ", hole.first));
      reached[hole.shard] += hole.count;
    }
    for (size_t s = 0; s < reached.size(); ++s)
      if (reached[s] != target_.shards[s].numel)
        fail(target_.shards[s].tensor, cat("expected ", target_.shards[s].numel,
                                           " elements of a shard in the files, found ", reached[s]));
    for (const Hole& hole : target_.holes)
      if (!range_inside(hole.first, hole.count, target_.shards[hole.shard].numel))
        fail(target_.shards[hole.shard].tensor, "a range lies outside its shard");
  }

  void by_file() const {
    size_t next = 0;
    for (uint32_t f = 0; f < target_.files.size(); ++f) {
      const TargetFile& file = target_.files[f];
      std::vector<std::pair<int64_t, int64_t>> taken;  // begin, end
      for (const FixedBytes& fixed : file.fixed)
        taken.emplace_back(fixed.offset, fixed.offset + static_cast<int64_t>(fixed.bytes.size()));
      for (; next < target_.holes.size() && target_.holes[next].file == f; ++next)
        if (target_.holes[next].count > 0)
          taken.emplace_back(target_.holes[next].offset,
                             target_.holes[next].offset + target_.holes[next].bytes());
      if (file.make) continue;  // the library that makes it tells where they lie
      std::sort(taken.begin(), taken.end());
      int64_t end = 0;
      for (const auto& [from, to] : taken) {
        if (from < end || to > file.size)
          throw refused("plan.target", cat("the output is not laid out whole: bytes ", from, " to ", to,
                                           " of a file of ", file.size, " bytes are taken already"))
              .in_file(file.name);
        end = std::max(end, to);
      }
    }
    if (next != target_.holes.size())
      throw refused("plan.target", "the output is not laid out whole: its holes are not in the files' order");
  }

  const Catalog& catalog_;
  const TargetLayout& target_;
};

}  // namespace

void prove_target(const Catalog& catalog, const TargetLayout& target) { Proof(catalog, target).run(); }

}  // namespace uckpt::plan
