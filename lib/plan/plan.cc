#include "lib/plan/plan.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/plan/box.h"
#include "lib/plan/checks.h"
#include "lib/plan/target_proof.h"
#include "lib/tensor/nest.h"

namespace uckpt::plan {

namespace {

// A source or target piece in its coarsest form, with where its file bytes are.
struct Side {
  Box box;
  Hull hull;
  uint32_t index;  // of the piece
};

// The source's pieces of one tensor. In order: none begins or ends before the one in front of it, so those
// that meet a target are found by search.
struct Sources {
  std::vector<Side> sides;
  bool in_order = true;

  std::span<const Side> meeting(const Hull& target) const {
    if (!in_order) return sides;
    const auto first =
        std::ranges::lower_bound(sides, target.first, {}, [](const Side& s) { return s.hull.last; });
    const auto past = std::ranges::upper_bound(first, sides.end(), target.last, {},
                                               [](const Side& s) { return s.hull.first; });
    return {first, past};
  }
};

Sources in_order(std::vector<Side> sides) {
  const auto goes_back = [](const Side& a, const Side& b) {
    return b.hull.first < a.hull.first || b.hull.last < a.hull.last;
  };
  const bool ordered = std::ranges::adjacent_find(sides, goes_back) == sides.end();
  return {std::move(sides), ordered};
}

bool have_same_factors(const Box& a, const Box& b) {
  return std::ranges::equal(a.axes, b.axes, {}, &Axis::size, &Axis::size);
}

std::vector<Side> sides_of(std::span<const Piece> pieces, const Catalog& catalog, int64_t numel) {
  std::vector<Side> out;
  out.reserve(pieces.size());
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    Box box = coarsen(0, catalog.axes_of(pieces[i]));
    if (numel == 0 || box.volume() == 0) continue;
    const Hull hull = hull_of(box.axes);
    out.push_back({std::move(box), hull, i});
  }
  return out;
}

constexpr uint32_t kNone = 0xffffffff;

class Builder {
 public:
  Builder(const Catalog& catalog, const TargetLayout& target, const PlanOptions& options)
      : catalog_(catalog), target_(target), options_(options) {}

  Plan build() {
    prove_target(catalog_, target_);
    reserve();
    for (uint32_t shard = 0; shard < target_.shards.size(); ++shard) join_shard(shard);
    for (const Hole& hole : target_.holes) {
      plan_.bytes_out += hole.bytes();
      if (hole.is_copy) plan_.bytes_in += hole.count * unit_size(tensor_of(hole.shard).dtype);
    }
    index_moves(plan_.moves, plan_.first_move, true);
    index_moves(plan_.compares, plan_.first_compare, false);
    index_moves(plan_.addends, plan_.first_addend, false);
    if (options_.check_crc) plan_checks(catalog_, target_, options_.check_digests, plan_);
    return std::move(plan_);
  }

 private:
  // Flat ranges cut each other into as many moves as both sides have pieces, at most. Growing step by step
  // would hold the moves twice, and they are most of what planning holds.
  void reserve() {
    size_t moves = 0, compares = 0;
    uint32_t last = kNone;
    for (const TargetShard& shard : target_.shards) {
      const Tensor& t = catalog_.tensors[shard.tensor];
      moves += shard.pieces + (shard.tensor == last ? 0 : t.pieces.count);
      for (const Copy& copy : t.copies)
        compares += shard.pieces + (shard.tensor == last ? 0 : copy.pieces.count);
      last = shard.tensor;
    }
    plan_.moves.reserve(moves);
    if (options_.compare_copies) plan_.compares.reserve(compares);
  }

  const Tensor& tensor_of(uint32_t shard) const { return catalog_.tensors[target_.shards[shard].tensor]; }

  [[noreturn]] void fail(const Tensor& t, std::string code, std::string message) const {
    throw refused(std::move(code), std::move(message)).in_file(catalog_.path).in_tensor(t.path());
  }

  void prove_source(const Tensor& t, std::span<const Side> sides) const {
    std::vector<Box> boxes;
    boxes.reserve(sides.size());
    for (const Side& s : sides) boxes.push_back(s.box);
    const auto problem = find_cover_problem(boxes, units_of(t));
    if (!problem) return;
    switch (problem->kind) {
      case CoverProblem::kHole:
        fail(t, "plan.hole",
             cat("the pieces in the input do not cover the tensor: expected ", units_of(t),
                 " elements, found ", problem->covered));
      case CoverProblem::kOverlap:
        fail(t, "plan.overlap",
             cat("pieces in the input overlap: expected ", units_of(t), " elements, found ", problem->covered,
                 " with repetition"));
      case CoverProblem::kFactoring:
        fail(t, "plan.factoring", "the pieces in the input cut the tensor along factorings that do not nest");
    }
  }

  void join_shard(uint32_t shard) {
    const Tensor& t = tensor_of(shard);
    if (!t.refusal.empty()) fail(t, "tensor.refused", t.refusal);
    join_whole(t, shard, t.pieces, plan_.moves, kNoCompare);
    for (uint32_t i = 0; i < t.averaged_with.size(); ++i)
      join_whole(t, shard, t.averaged_with[i], plan_.addends, i);
    if (options_.compare_copies) join_copies(t, shard);
  }

  std::span<const TargetPiece> targets_of(uint32_t shard) const {
    const TargetShard& s = target_.shards[shard];
    return std::span(target_.pieces).subspan(s.first_piece, s.pieces);
  }

  // From pieces that must be the whole tensor, to all of the shard.
  void join_whole(const Tensor& t, uint32_t shard, PieceRange pieces, std::vector<Move>& list,
                  uint32_t number) {
    // All shards of one tensor follow each other where they are many: it is looked at and proved once.
    if (proved_.first != pieces.first || proved_.count != pieces.count) {
      proved_ = {kNone, 0};
      sources_ = in_order(sides(t, pieces, t.dtype));
      prove_source(t, sources_.sides);
      proved_ = pieces;
    }
    for (const TargetPiece& tp : targets_of(shard)) {
      const Side side = target_side(tp, t);
      if (side.box.volume() == 0) continue;
      const int64_t volume = join(t, shard, sources_, pieces, t.dtype, tp, side, list, number);
      if (volume != side.box.volume()) {
        fail(t, "plan.hole",
             cat("the target wants ", side.box.volume(), " elements, the input gives ", volume));
      }
    }
  }

  void join_copies(const Tensor& t, uint32_t shard) {
    for (uint32_t c = 0; c < t.copies.size(); ++c) {
      const Copy& copy = t.copies[c];
      const Sources sources = in_order(sides(t, copy.pieces, copy.dtype));
      const auto id = compared_of(target_.shards[shard].tensor, c);
      for (const TargetPiece& tp : targets_of(shard)) {
        if (tp.is_copy) continue;
        const int64_t volume =
            join(t, shard, sources, copy.pieces, copy.dtype, tp, target_side(tp, t), plan_.compares, id);
        plan_.bytes_compared += volume * unit_size(copy.dtype);
      }
    }
  }

  // A copy is counted once, however many shards its tensor has.
  uint32_t compared_of(uint32_t tensor, uint32_t copy) {
    const auto next = static_cast<uint32_t>(plan_.compared.size());
    const auto [at, is_new] = compared_.try_emplace(std::pair(tensor, copy), next);
    if (is_new) plan_.compared.push_back({tensor, copy});
    return at->second;
  }

  std::vector<Side> sides(const Tensor& t, PieceRange range, DType dtype) const {
    const auto pieces = catalog_.pieces_of(range);
    if (item_size(dtype) > 0) return sides_of(pieces, catalog_, units_of(t));
    if (pieces.size() != 1)
      fail(t, "plan.sub_byte", "a tensor of a type under a byte lies in several pieces");
    const Axis whole{units_of(t), 0, units_of(t), 1};
    std::vector<Side> out;
    if (units_of(t) > 0) out.push_back({coarsen(0, {&whole, 1}), {0, units_of(t) - 1}, 0});
    return out;
  }

  Side target_side(const TargetPiece& tp, const Tensor& t) const {
    Box box = coarsen(0, {target_.axes.data() + tp.axes_at, tp.rank});
    if (box.volume() == 0 || units_of(t) == 0) return {{0, {{1, 0, 0, 1}}}, {0, -1}, 0};
    const Hull hull = hull_of(box.axes);
    return {std::move(box), hull, 0};
  }

  // Adds the moves from all sources to one target piece; tells how many elements they carry.
  int64_t join(const Tensor& t, uint32_t shard, const Sources& sources, PieceRange range, DType src_dtype,
               const TargetPiece& tp, const Side& target, std::vector<Move>& list, uint32_t number) {
    int64_t volume = 0;
    for (const Side& source : sources.meeting(target.hull)) {
      if (source.hull.last < target.hull.first || target.hull.last < source.hull.first) continue;
      const Piece& piece = catalog_.pieces_of(range)[source.index];
      if (have_same_factors(source.box, target.box)) {
        volume += intersect(piece, source.box, tp, target.box, shard, t.dtype, src_dtype, list, number);
        continue;
      }
      const auto cuts = common_cuts(cuts_of(source.box.axes), cuts_of(target.box.axes));
      if (!cuts)
        fail(t, "plan.factoring",
             "the source and the target cut the tensor along factorings that do not nest");
      std::vector<Box> from, to;
      refine(source.box, *cuts, from);
      refine(target.box, *cuts, to);
      for (const Box& a : from)
        for (const Box& b : to) volume += intersect(piece, a, tp, b, shard, t.dtype, src_dtype, list, number);
    }
    return volume;
  }

  int64_t intersect(const Piece& piece, const Box& a, const TargetPiece& tp, const Box& b, uint32_t shard,
                    DType dst_dtype, DType src_dtype, std::vector<Move>& list, uint32_t number) {
    const int64_t src_item = unit_size(src_dtype), dst_item = unit_size(dst_dtype);
    int64_t src = piece.offset + a.offset * src_item, dst = (tp.offset + b.offset) * dst_item, volume = 1;
    std::vector<Loop>& nest = nest_;
    nest.clear();
    for (size_t i = 0; i < a.axes.size(); ++i) {
      const Axis &x = a.axes[i], &y = b.axes[i];
      const int64_t from = std::max(x.start, y.start);
      const int64_t extent = std::min(x.start + x.extent, y.start + y.extent) - from;
      if (extent <= 0) return 0;
      volume *= extent;
      src += (from - x.start) * x.stride * src_item;
      dst += (from - y.start) * y.stride * dst_item;
      if (extent > 1) add_loop(nest, {extent, x.stride * src_item, y.stride * dst_item});
    }
    std::stable_sort(nest.begin(), nest.end(),
                     [](const Loop& l, const Loop& r) { return l.dst_stride > r.dst_stride; });
    Loop innermost{1, src_item, dst_item};
    if (!nest.empty()) {
      innermost = nest.back();
      nest.pop_back();
    }
    list.push_back({src, dst, innermost.count, innermost.src_stride, innermost.dst_stride, piece.file,
                    piece.record, shard, static_cast<uint32_t>(plan_.loops.size()),
                    static_cast<uint8_t>(nest.size()), piece.flags, static_cast<uint8_t>(src_item),
                    static_cast<uint8_t>(dst_item), tp.is_copy, src_dtype, number});
    plan_.loops.insert(plan_.loops.end(), nest.begin(), nest.end());
    plan_.bytes_in += volume * src_item;
    return volume;
  }

  // Appends an inner loop, as one with the loop around it where both sides allow.
  static void add_loop(std::vector<Loop>& nest, Loop inner) {
    if (!nest.empty()) {
      Loop& outer = nest.back();
      if (outer.src_stride == inner.src_stride * inner.count &&
          outer.dst_stride == inner.dst_stride * inner.count) {
        outer = {outer.count * inner.count, inner.src_stride, inner.dst_stride};
        return;
      }
    }
    nest.push_back(inner);
  }

  // Moves come shard by shard; inside a shard they are put in target order, and neighbours that continue each
  // other on both sides (the rows of a flat range that was cut into boxes) become one run again.
  void index_moves(std::vector<Move>& moves, std::vector<uint32_t>& first, bool merge) {
    const auto less = [](const Move& a, const Move& b) {
      return a.shard != b.shard ? a.shard < b.shard : a.dst_offset < b.dst_offset;
    };
    if (!std::is_sorted(moves.begin(), moves.end(), less)) std::stable_sort(moves.begin(), moves.end(), less);
    size_t kept = 0;
    for (size_t i = 0; i < moves.size(); ++i) {
      if (kept > 0 && continues(moves[kept - 1], moves[i])) {
        moves[kept - 1].count += moves[i].count;
      } else {
        moves[kept++] = moves[i];
      }
    }
    const bool is_worth_moving = kept < moves.size() / 2;
    moves.resize(kept);
    if (is_worth_moving) moves.shrink_to_fit();
    first.assign(target_.shards.size() + 1, 0);
    for (const Move& m : moves) ++first[m.shard + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    if (merge) find_sequential();
  }

  static bool continues(const Move& a, const Move& b) {
    return a.is_run() && b.is_run() && a.shard == b.shard && a.file == b.file && a.record == b.record &&
           a.flags == b.flags && a.is_copy == b.is_copy && a.compare == b.compare &&
           a.src_offset + a.count * a.src_step == b.src_offset &&
           a.dst_offset + a.count * a.dst_step == b.dst_offset;
  }

  void find_sequential() {
    plan_.sequential.assign(target_.shards.size(), true);
    for (uint32_t shard = 0; shard < target_.shards.size(); ++shard) {
      int64_t end = 0;
      for (uint32_t m = plan_.first_move[shard]; m < plan_.first_move[shard + 1]; ++m) {
        const ByteRange r = target_range(plan_, plan_.moves[m]);
        if (r.begin < end) plan_.sequential[shard] = false;
        end = r.end;
      }
    }
  }

  const Catalog& catalog_;
  const TargetLayout& target_;
  const PlanOptions& options_;
  Plan plan_;
  PieceRange proved_{kNone, 0};
  Sources sources_;  // of proved_
  std::vector<Loop> nest_;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> compared_;  // tensor, copy -> index into Plan::compared
};

// A move's loops as one list, the innermost last.
struct Nest {
  const Plan& plan;
  const Move& move;
  size_t depth() const { return static_cast<size_t>(move.loops) + 1; }
  Loop loop(size_t level) const {
    if (level < move.loops) return plan.loops[move.loops_at + level];
    return {move.count, move.src_step, move.dst_step};
  }
};

}  // namespace

int64_t Plan::metadata_bytes() const {
  // Room that was reserved and not used takes no memory.
  return static_cast<int64_t>(
      (moves.size() + compares.size() + addends.size()) * sizeof(Move) + loops.size() * sizeof(Loop) +
      check_reads.size() * sizeof(CheckRead) + checks.size() * sizeof(RecordCheck) +
      (first_move.size() + first_compare.size() + first_addend.size()) * sizeof(uint32_t));
}

Plan make_plan(const Catalog& catalog, const TargetLayout& target, const PlanOptions& options) {
  return Builder(catalog, target, options).build();
}

ByteRange target_range(const Plan& plan, const Move& move) {
  const Nest nest{plan, move};
  int64_t span = move.dst_item;
  for (size_t l = 0; l < nest.depth(); ++l) span += (nest.loop(l).count - 1) * nest.loop(l).dst_stride;
  return {move.dst_offset, move.dst_offset + span};
}

void clip(const Plan& plan, const Move& move, int64_t begin, int64_t end, const BoxVisitor& visit) {
  if (move.loops == 0) {  // a run: no nest to walk
    const int64_t step = move.dst_step;
    const int64_t first = begin <= move.dst_offset ? 0 : ceil_div(begin - move.dst_offset, step);
    const int64_t past =
        end <= move.dst_offset ? 0 : std::min(move.count, ceil_div(end - move.dst_offset, step));
    if (past <= first) return;
    const int64_t count = past - first;
    visit(move.src_offset + first * move.src_step, move.dst_offset + first * step, {&count, 1});
    return;
  }
  const Nest nest{plan, move};
  std::vector<NestLoop> loops;
  for (size_t l = 0; l < nest.depth(); ++l) loops.push_back({nest.loop(l).count, nest.loop(l).dst_stride});
  clip_nest(loops, move.dst_offset, begin, end,
            [&](std::span<const int64_t> starts, std::span<const int64_t> counts) {
              int64_t src = move.src_offset, dst = move.dst_offset;
              for (size_t l = 0; l < loops.size(); ++l) {
                src += starts[l] * nest.loop(l).src_stride;
                dst += starts[l] * nest.loop(l).dst_stride;
              }
              visit(src, dst, counts);
            });
}

}  // namespace uckpt::plan
