// How a run is cut: tasks of about 1 MiB of output, buffers from a budget.
#pragma once

#include <cstdint>
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
  int64_t strided_bytes;  // the same where the source is strided: wide enough to read more than elements
  int64_t staging_bytes;
  int64_t total() const;  // of all threads
};

// Sizes from the budget; 0 threads: one a core; 0 bytes: a quarter of the machine's memory. Throws trouble
// (`limit.max_mem`) if it is too small to work in.
Buffers size_buffers(int threads, int64_t max_mem);

// What a run writes, and what it reads for checksums alone: for its progress.
int64_t bytes_to_do(const plan::Plan& plan);

std::vector<Task> cut_tasks(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
                            const Buffers& buffers);

}  // namespace uckpt::exec
