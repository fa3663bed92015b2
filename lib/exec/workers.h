// The one place where threads are made: `count` tasks pulled in order by `threads` workers.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "lib/base/error.h"
#include "lib/exec/progress.h"

namespace uckpt::exec {

struct WorkerBody {
  template <class Work>
  WorkerBody(
      Work work_, std::function<void()> drain_ = [] {})
      : work(work_), drain(std::move(drain_)) {}
  std::function<void(size_t)> work;
  std::function<void()> drain;  // what it has begun, once there is nothing more to begin
};

// Calls `make_worker()` once in each worker, and the work it returns with every index below `count`, each
// once, in rising order as workers get free (so that writes stay nearly sequential). The first exception
// stops all and is rethrown; so does `stop`, as a resumable error.
void run_workers(int threads, size_t count, const StopFlag& stop,
                 const std::function<WorkerBody()>& make_worker);

int default_threads();

}  // namespace uckpt::exec
