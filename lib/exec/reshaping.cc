#include "lib/exec/reshaping.h"

#include <algorithm>
#include <span>

namespace uckpt::exec {

namespace {

using plan::Loop;
using plan::Move;

int64_t bytes_of(const plan::Plan& plan, const Move& m) {
  int64_t items = m.count;
  for (uint32_t l = 0; l < m.loops; ++l) items *= plan.loops[m.loops_at + l].count;
  return items * m.src_item;
}

// The bytes that lie together on both sides.
int64_t common_run(const plan::Plan& plan, const Move& m) {
  int64_t run = m.src_item;
  const auto goes_on = [&](const Loop& l) {
    const bool together = l.count == 1 || (l.src_stride == run && l.dst_stride == run);
    if (together) run *= l.count;
    return together;
  };
  bool together = goes_on({m.count, m.src_step, m.dst_step});
  for (uint32_t l = m.loops; l-- > 0 && together;) together = goes_on(plan.loops[m.loops_at + l]);
  return run;
}

// How most bytes of these moves get into a shard of the tensor's own type, and how many they are.
struct Gathered {
  Reshaping how = Reshaping::kCopied;
  int64_t bytes = 0;
};
Gathered gathered(const plan::Plan& plan, std::span<const Move> moves) {
  int64_t sum = 0, apart = 0, changed = 0;
  for (const Move& m : moves) {
    const int64_t bytes = bytes_of(plan, m);
    sum += bytes;
    if (m.flags != kPlain) {
      changed += bytes;
    } else if (!m.is_run()) {
      const int64_t run = common_run(plan, m);
      if (run < kLongRun && run < bytes) apart += bytes;
    }
  }
  if (apart + changed == 0 || apart + changed < sum - apart - changed) return {Reshaping::kCopied, sum};
  return {changed > apart ? Reshaping::kCast : Reshaping::kStrided, sum};
}

std::span<const Move> moves_of(const std::vector<Move>& moves, const std::vector<uint32_t>& first,
                               uint32_t shard) {
  return {moves.data() + first[shard], first[shard + 1] - first[shard]};
}

int64_t sum_of(const plan::Plan& plan, std::span<const Move> moves) {
  int64_t sum = 0;
  for (const Move& m : moves) sum += bytes_of(plan, m);
  return sum;
}

// The hole's share of bytes that are read for its whole shard.
int64_t share_of(const Hole& hole, const TargetShard& shard, int64_t bytes) {
  if (shard.numel == 0) return 0;
  const double rest = static_cast<double>(bytes % shard.numel) * static_cast<double>(hole.count) /
                      static_cast<double>(shard.numel);
  return bytes / shard.numel * hole.count + static_cast<int64_t>(rest);
}

bool is_computed(const TargetShard& shard, const Tensor& t) {
  return !t.averaged_with.empty() || t.factor != 1 || t.summand != 0 || shard.factor != 1 ||
         shard.summand != 0;
}

}  // namespace

Flow Work::all() const {
  Flow sum;
  for (const Flow& f : of) sum.in += f.in, sum.out += f.out;
  return sum;
}

Flow Work::for_device() const {
  Flow sum = all();
  const Flow& copied = (*this)[Reshaping::kCopied];
  return {sum.in - copied.in, sum.out - copied.out};
}

Reshapings::Reshapings(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan) {
  std::vector<Gathered> shards;
  std::vector<int64_t> compared;  // bytes, read for the first hole of each element alone
  shards.reserve(target.shards.size());
  compared.reserve(plan.compares.empty() ? 0 : target.shards.size());
  for (uint32_t s = 0; s < target.shards.size(); ++s) {
    shards.push_back(gathered(plan, moves_of(plan.moves, plan.first_move, s)));
    shards.back().bytes += sum_of(plan, moves_of(plan.addends, plan.first_addend, s));
    if (!plan.compares.empty())
      compared.push_back(sum_of(plan, moves_of(plan.compares, plan.first_compare, s)));
  }
  of_.reserve(target.holes.size());
  for (const Hole& hole : target.holes) {
    const TargetShard& shard = target.shards[hole.shard];
    const Tensor& t = catalog.tensors[shard.tensor];
    const Gathered& g = shards[hole.shard];
    Reshaping how = g.how;
    if (hole.dtype != t.dtype) how = Reshaping::kCast;
    if (is_computed(shard, t)) how = Reshaping::kMean;
    of_.push_back(how);
    Flow& flow = work_[how];
    flow.in += share_of(hole, shard, g.bytes);
    if (!hole.is_copy && !compared.empty()) flow.in += share_of(hole, shard, compared[hole.shard]);
    flow.out += hole.bytes();
  }
}

}  // namespace uckpt::exec
