#include "lib/exec/task_queues.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace uckpt::exec {

TaskQueues::TaskQueues(const TargetLayout& target, const std::vector<Task>& tasks,
                       const std::vector<bool>& done) {
  constexpr uint32_t kNoFile = ~uint32_t{0};
  std::vector<uint32_t> begins;
  uint32_t file = kNoFile;
  for (uint32_t i = 0; i < done.size(); ++i) {
    if (done[i]) continue;
    const uint32_t its = i < tasks.size() ? target.holes[tasks[i].first_hole].file : kNoFile;
    if (begins.empty() || its != file) begins.push_back(static_cast<uint32_t>(numbers_.size()));
    file = its;
    numbers_.push_back(i);
  }
  count_ = static_cast<uint32_t>(begins.size());
  queues_ = std::make_unique<Queue[]>(count_);
  begins.push_back(static_cast<uint32_t>(numbers_.size()));
  const auto length = [&](uint32_t q) { return begins[q + 1] - begins[q]; };
  std::vector<uint32_t> order(count_);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::ranges::greater{}, length);
  for (uint32_t i = 0; i < count_; ++i) {
    queues_[i].next = begins[order[i]];
    queues_[i].end = begins[order[i] + 1];
  }
}

uint32_t TaskQueues::next(uint32_t& queue) {
  for (;;) {
    if (queue != kNoQueue) {
      const uint32_t at = queues_[queue].next++;
      if (at < queues_[queue].end) return numbers_[at];
      --queues_[queue].next;
    }
    queue = next_queue_ < count_ ? next_queue_++ : count_;
    if (queue >= count_) queue = longest();
  }
}

uint32_t TaskQueues::longest() const {
  uint32_t best = 0, most = 0;
  for (uint32_t q = 0; q < count_; ++q) {
    const uint32_t next = queues_[q].next, left = next < queues_[q].end ? queues_[q].end - next : 0;
    if (left > most) best = q, most = left;
  }
  return best;
}

}  // namespace uckpt::exec
