// What memory a run needs, and the buffers that are left for its threads.
#pragma once

#include <cstdint>
#include <span>

#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

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

}  // namespace uckpt::exec
