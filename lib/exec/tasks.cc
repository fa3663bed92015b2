#include "lib/exec/tasks.h"

#include <algorithm>

#include "lib/exec/copy_rules.h"
#include "lib/io/direct.h"

namespace uckpt::exec {

int64_t bytes_to_do(const plan::Plan& plan) {
  int64_t sum = plan.bytes_out;
  for (const plan::CheckRead& read : plan.check_reads) sum += read.size;
  return sum;
}

namespace {

constexpr uint32_t kMostHolesInTask = 4096;

// Of each shard: the bytes of it in which the runs read are as long as the rule wants, as far as they can be.
// 0: any task reads what lies close together.
std::vector<int64_t> wide_ranges(const TargetLayout& target, const plan::Plan& plan) {
  const CopyRule rule = copy_rule(CopyShape::kTransposed);
  std::vector<int64_t> out(target.shards.size(), 0);
  for (const plan::Move& m : plan.moves) {
    if (m.is_run() || m.src_step < rule.run_bytes) continue;
    // The loop along which the source goes on, and how far apart its steps lie in the target.
    int64_t least = m.src_step, apart = m.dst_step, most = m.count;
    for (int l = 0; l < m.loops; ++l) {
      const plan::Loop& loop = plan.loops[m.loops_at + static_cast<uint32_t>(l)];
      if (loop.src_stride >= least) continue;
      least = loop.src_stride;
      apart = loop.dst_stride;
      most = loop.count;
    }
    if (least >= m.src_step) continue;
    const int64_t steps = std::min(most, rule.run_bytes / std::max<int64_t>(1, least));
    int64_t wanted = 0;
    if (__builtin_mul_overflow(apart, steps, &wanted)) wanted = rule.task_bytes;
    out[m.shard] = std::max(out[m.shard], std::min(wanted, rule.task_bytes));
  }
  return out;
}

// Cuts one large hole into tasks of `step` units, the first one shorter where the hole does not begin at a
// page of its file.
void cut_hole(uint32_t number, const Hole& hole, int64_t step, std::vector<Task>& tasks) {
  const int64_t unit = unit_size(hole.dtype);
  if (step > kTaskUnits) step -= step % kTaskUnits;
  int64_t first = step;
  if (step >= kTaskUnits && kPageBytes % unit == 0 && hole.offset % unit == 0)
    first -= hole.offset % kPageBytes / unit;
  for (int64_t at = 0, end = std::min(first, hole.count); at < hole.count;
       at = end, end = std::min(end + step, hole.count))
    tasks.push_back({number, number, at, end});
}

}  // namespace

std::vector<Task> cut_tasks(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
                            const Buffers& buffers) {
  std::vector<Task> tasks;
  const auto count = static_cast<uint32_t>(target.holes.size());
  const std::vector<int64_t> wide = wide_ranges(target, plan);
  // Bytes that a task of these units holds: of the wider of the types read and written.
  const auto item_of = [&](const Hole& h) {
    return std::max(unit_size(target.tensor_of(catalog, h).dtype), unit_size(h.dtype));
  };
  for (uint32_t first = 0; first < count;) {
    const Hole& hole = target.holes[first];
    const int64_t item = item_of(hole);
    const int64_t most = std::clamp(wide[hole.shard], buffers.task_bytes, buffers.strided_bytes);
    if (hole.count * item > buffers.task_bytes) {
      cut_hole(first, hole, std::max<int64_t>(1, most / item), tasks);
      ++first;
      continue;
    }
    uint32_t last = first;
    int64_t sum = hole.count * item;
    while (last + 1 < count && last - first < kMostHolesInTask && target.holes[last + 1].file == hole.file) {
      const Hole& next = target.holes[last + 1];
      if (sum + next.count * item_of(next) > buffers.task_bytes) break;
      sum += next.count * item_of(next);
      ++last;
    }
    tasks.push_back({first, last, 0, target.holes[last].count});
    first = last + 1;
  }
  return tasks;
}

int64_t widest_range(const TargetLayout& target, const plan::Plan& plan) {
  const std::vector<int64_t> ranges = wide_ranges(target, plan);
  return ranges.empty() ? 0 : *std::ranges::max_element(ranges);
}

}  // namespace uckpt::exec
