// How a run is cut: tasks of about 1 MiB of output, buffers from a budget.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// Part of one large hole, or several small holes of one file whole.
struct Task {
  uint32_t first_hole, last_hole;  // inclusive
  int64_t begin, end;              // units of the hole if it is one
};

struct Buffers {
  int threads;
  int64_t task_bytes;     // of output a task
  int64_t strided_bytes;  // the same at most where a wider one reads longer runs (lib/exec/copy_rules.h)
  int64_t staging_bytes;
  int copies = 3;         // of a task's range that a thread may hold at once
  int64_t total() const;  // of all threads
};

// How much memory, and what else it is for.
struct Budget {
  int threads = 0;      // 0: one a core
  int64_t max_mem = 0;  // bytes; 0: `default_max_mem()`
  int64_t held = 0;     // of them, what catalog and plan take
  int copies = 3;       // see Buffers
  bool direct = false;  // past the page cache
};

// Throws trouble (`limit.max_mem`) if the budget is too small to work in.
Buffers size_buffers(const Budget& budget);
// What a conversion holds, and how many copies of a range its casts, comparisons and means need. An estimate
// that depends on nothing else, so that an interrupted run is cut the same way again.
Budget budget_for(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan);
// The same where these are read whole, side by side, and nothing is written.
Budget budget_to_read(std::span<const Catalog* const> catalogs);

// What a run writes, and what it reads for checksums alone: for its progress.
int64_t bytes_to_do(const plan::Plan& plan);

// A task that is not a hole's first begins at a page of the file, where the sizes allow it, and at a multiple
// of `kTaskUnits` units from the one before.
inline constexpr int64_t kTaskUnits = 4096;
std::vector<Task> cut_tasks(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
                            const Buffers& buffers);
// The bytes that a task must have so that the runs read are long, where neighbours in the output lie far
// apart in the input; 0: they do not.
int64_t widest_range(const TargetLayout& target, const plan::Plan& plan);
// The indices of the tasks in an order in which `threads` workers write to as many files, each from its
// beginning to its end: a file takes one write at a time.
std::vector<uint32_t> order_of_tasks(const TargetLayout& target, const std::vector<Task>& tasks, int threads);

}  // namespace uckpt::exec
