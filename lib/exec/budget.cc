#include "lib/exec/budget.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/text.h"
#include "lib/exec/copy_rules.h"
#include "lib/exec/workers.h"

namespace uckpt::exec {

namespace {

constexpr int64_t kSmallest = int64_t{32} << 10;
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
                bytes_of_list(c.records) + bytes_of_list(c.record_names) + bytes_of_list(c.objects) +
                bytes_of_list(c.literals) + static_cast<int64_t>(c.files.size()) * kOfFile;
  for (const std::string& name : c.record_names) sum += bytes_of_text(name);
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
    for (const FixedBytes& fixed : f.fixed) sum += static_cast<int64_t>(fixed.bytes.share());
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

}  // namespace uckpt::exec
