#include "lib/exec/workers.h"

#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace uckpt::exec {

namespace {

// Runs `worker` (which does not throw) `threads` times at once.
#ifdef __SANITIZE_THREAD__
// ThreadSanitizer cannot see how the uninstrumented library hands work over, and would report all of it. So
// in that build the same workers run on plain threads: our code is checked, the library's is not.
void run_at_once(int threads, const std::function<void()>& worker) {
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(worker);
  worker();
}
#else
void run_at_once(int threads, const std::function<void()>& worker) {
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads));
  tbb::task_arena arena(threads);
  arena.execute([&] { tbb::parallel_for(0, threads, [&](int) { worker(); }); });
}
#endif

}  // namespace

int default_threads() { return tbb::info::default_concurrency(); }

void run_workers(int threads, size_t count, const StopFlag& stop,
                 const std::function<WorkerBody()>& make_worker) {
  const int wanted = static_cast<int>(std::clamp<size_t>(count, 1, static_cast<size_t>(threads)));
  std::atomic<size_t> next{0}, done{0};
  std::atomic<bool> failed{false};
  std::exception_ptr first_failure;
  run_at_once(wanted, [&] {
    try {
      const WorkerBody body = make_worker();
      for (size_t i; !failed && !stop && (i = next++) < count; ++done) body.work(i);
      if (!failed) body.drain();
    } catch (...) {
      if (!failed.exchange(true)) first_failure = std::current_exception();
    }
  });
  if (first_failure) std::rethrow_exception(first_failure);
  if (done < count) {
    throw Error(ErrorKind::kResumable, "stopped", "stopped before the end; the same command starts again");
  }
}

}  // namespace uckpt::exec
