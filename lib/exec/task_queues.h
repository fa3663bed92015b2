// Who does which task: each worker a file of its own, from its beginning to its end, as long as there is one.
// A file takes one write at a time, so two workers that write to the same one wait for each other. The files
// with most tasks come first, so that little is left for the end, when workers share what there is.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/exec/tasks.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

class TaskQueues {
 public:
  static constexpr uint32_t kNoQueue = ~uint32_t{0};

  // Of `tasks`, which stand in the order of their files, and of the numbers behind them those that are not
  // done.
  TaskQueues(const TargetLayout& target, const std::vector<Task>& tasks, const std::vector<bool>& done);

  size_t size() const { return numbers_.size(); }
  // A number that no other call has had: of the caller's queue, which it keeps between calls and which begins
  // as kNoQueue; then of the next that nobody has; then of the one with most left. To be called `size()`
  // times at most, by any thread.
  uint32_t next(uint32_t& queue);

 private:
  struct Queue {
    std::atomic<uint32_t> next{0};
    uint32_t end = 0;
  };
  uint32_t longest() const;

  std::vector<uint32_t> numbers_;
  std::unique_ptr<Queue[]> queues_;  // parts of `numbers_`
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_queue_{0};
};

}  // namespace uckpt::exec
