// How a run is cut: tasks of about 1 MiB of output, in the order of files and offsets.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/exec/budget.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// Part of one large hole, or several small holes of one file whole.
struct Task {
  uint32_t first_hole, last_hole;  // inclusive
  int64_t begin, end;              // units of the hole if it is one
};

// Calls `range(hole, begin, count)` for each hole of a task that is not empty.
template <class Function>
void for_each_range(const TargetLayout& target, const Task& task, Function range) {
  for (uint32_t h = task.first_hole; h <= task.last_hole; ++h) {
    const bool is_part = task.first_hole == task.last_hole;
    const int64_t begin = is_part ? task.begin : 0, end = is_part ? task.end : target.holes[h].count;
    if (begin < end) range(h, begin, end - begin);
  }
}

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

}  // namespace uckpt::exec
