#include "lib/exec/tasks.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/text.h"
#include "lib/exec/copy_rules.h"
#include "lib/exec/workers.h"
#include "lib/io/direct.h"

namespace uckpt::exec {

namespace {

constexpr int64_t kSmallest = int64_t{32} << 10;
constexpr uint32_t kMostHolesInTask = 4096;
// The program with its libraries, and what a verb has in hand beside catalog and plan.
constexpr int64_t kProgramBytes = int64_t{4} << 20;

template <class T>
int64_t bytes_of_list(const std::vector<T>& list) {
  return static_cast<int64_t>(list.capacity() * sizeof(T));
}

int64_t bytes_of_text(const std::string& text) { return static_cast<int64_t>(text.capacity()); }

int64_t bytes_of_catalog(const Catalog& c) {
  constexpr int64_t kOfFile = 256;
  int64_t sum = bytes_of_list(c.axes) + bytes_of_list(c.pieces) + bytes_of_list(c.tensors) +
                bytes_of_list(c.records) + bytes_of_list(c.objects) + bytes_of_list(c.literals) +
                static_cast<int64_t>(c.files.size()) * kOfFile;
  for (const Record& r : c.records) sum += bytes_of_text(r.name);
  for (const Object& o : c.objects) sum += bytes_of_text(o.json);
  for (const Tensor& t : c.tensors)
    sum += bytes_of_text(t.name) + bytes_of_text(t.layout) + bytes_of_list(t.shape) + bytes_of_list(t.copies);
  for (const RankSet& set : c.ranks)
    for (const Tensor& t : set.tensors)
      sum += static_cast<int64_t>(sizeof t) + bytes_of_text(t.name) + bytes_of_list(t.shape);
  return sum;
}

int64_t bytes_of_layout(const TargetLayout& t) {
  int64_t sum = bytes_of_list(t.shards) + bytes_of_list(t.pieces) + bytes_of_list(t.axes) +
                bytes_of_list(t.holes) + bytes_of_list(t.checksums) + bytes_of_list(t.digests);
  for (const TargetFile& f : t.files)
    for (const FixedBytes& fixed : f.fixed) sum += bytes_of_list(fixed.bytes);
  return sum;
}

// The totals of findings: a word for each sum.
int64_t bytes_of_totals(const Catalog& c, const TargetLayout& t, const plan::Plan& p) {
  constexpr int64_t kWord = 8;
  return kWord * static_cast<int64_t>(2 * t.holes.size() + c.tensors.size() + p.checks.size() +
                                      2 * p.compared.size());
}

}  // namespace

int64_t Buffers::total() const {
  return threads * (copies * std::max(task_bytes, strided_bytes) + staging_bytes);
}

Buffers size_buffers(const Budget& budget) {
  const int threads = budget.threads != 0 ? budget.threads : default_threads();
  const int64_t max_mem = budget.max_mem != 0 ? budget.max_mem : default_max_mem(),
                room = max_mem - budget.held;
  const CopyRule dense = copy_rule(budget.direct ? CopyShape::kDirect : CopyShape::kDense),
                 wide = copy_rule(CopyShape::kTransposed);
  Buffers b{threads, dense.task_bytes, wide.task_bytes, kStagingBytes, budget.copies};
  while (b.total() > room && b.strided_bytes > kSmallest) b.strided_bytes /= 2;
  b.task_bytes = std::min(b.task_bytes, b.strided_bytes);
  while (b.total() > room && b.staging_bytes > kSmallest) b.staging_bytes /= 2;
  if (b.total() > room) {
    throw trouble("limit.max_mem", cat("--max-mem is too small for ", threads, " threads: expected at least ",
                                       human_bytes(static_cast<uint64_t>(b.total() + budget.held)),
                                       ", found ", human_bytes(static_cast<uint64_t>(max_mem))))
        .hint("use fewer threads (-j) or more memory");
  }
  return b;
}

Budget budget_for(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan) {
  const bool casts = std::ranges::any_of(
      target.holes, [&](const Hole& h) { return h.dtype != target.tensor_of(catalog, h).dtype; });
  Budget budget;
  // The range itself and what digests put in order; before a cast; both sides of a comparison; an addend.
  budget.copies = 2 + (casts ? 1 : 0) + (plan.compared.empty() ? 0 : 2) + (plan.addends.empty() ? 0 : 1);
  budget.held = kProgramBytes + bytes_of_catalog(catalog) + bytes_of_layout(target) + plan.metadata_bytes() +
                bytes_of_totals(catalog, target, plan);
  return budget;
}

Budget budget_to_read(std::span<const Catalog* const> catalogs) {
  Budget budget;
  budget.copies = 4;  // the range, both sides of a comparison, an addend
  budget.held = kProgramBytes;
  for (const Catalog* c : catalogs) budget.held += 2 * bytes_of_catalog(*c);  // its plan is as large
  return budget;
}

int64_t bytes_to_do(const plan::Plan& plan) {
  int64_t sum = plan.bytes_out;
  for (const plan::CheckRead& read : plan.check_reads) sum += read.size;
  return sum;
}

namespace {

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

std::vector<uint32_t> order_of_tasks(const TargetLayout& target, const std::vector<Task>& tasks,
                                     int threads) {
  const auto file_of = [&](uint32_t task) { return target.holes[tasks[task].first_hole].file; };
  const auto count = static_cast<uint32_t>(tasks.size());
  std::vector<uint32_t> order;
  order.reserve(count);
  std::vector<std::pair<uint32_t, uint32_t>> files;  // [next task, end) of those written at once
  for (uint32_t at = 0; at < count;) {
    files.clear();
    while (at < count && files.size() < static_cast<size_t>(threads)) {
      uint32_t end = at + 1;
      while (end < count && file_of(end) == file_of(at)) ++end;
      files.emplace_back(at, end);
      at = end;
    }
    for (bool some = true; some;) {
      some = false;
      for (auto& [next, end] : files) {
        if (next == end) continue;
        order.push_back(next++);
        some = true;
      }
    }
  }
  return order;
}

}  // namespace uckpt::exec
