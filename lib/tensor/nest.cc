#include "lib/tensor/nest.h"

#include <algorithm>
#include <vector>

#include "lib/base/checked.h"

namespace uckpt {

namespace {

class Clipper {
 public:
  Clipper(std::span<const NestLoop> loops, int64_t begin, int64_t end, const NestVisitor& visit)
      : loops_(loops),
        begin_(begin),
        end_(end),
        visit_(visit),
        starts_(loops.size(), 0),
        counts_(loops.size(), 1),
        spans_(loops.size() + 1, 1) {
    for (size_t l = loops.size(); l-- > 0;)
      spans_[l] = spans_[l + 1] + (loops[l].count - 1) * loops[l].stride;
  }

  // The loops from `level` inwards, their first position at `at`; outer loops stand at one index.
  void run(size_t level, int64_t at) {
    if (at >= end_ || at + spans_[level] <= begin_) return;
    if (level == loops_.size()) {
      visit_(starts_, counts_);
      return;
    }
    const NestLoop loop = loops_[level];
    const int64_t inner = spans_[level + 1];
    // Indices whose inner part touches the interval, and among them those that lie inside it whole.
    const int64_t first = at_least(begin_ - at - inner + 1, loop.stride);
    const int64_t past = std::min(loop.count, at_least(end_ - at, loop.stride));
    const int64_t whole_first = at_least(begin_ - at, loop.stride);
    const int64_t room = end_ - at - inner;
    const int64_t whole_past = room < 0 ? 0 : std::min(past, room / loop.stride + 1);
    int64_t i = first;
    for (; i < std::min(whole_first, past); ++i) descend(level, at, i);
    if (whole_past > i) {
      emit_whole(level, i, whole_past - i);
      i = whole_past;
    }
    for (; i < past; ++i) descend(level, at, i);
  }

 private:
  // The smallest index i >= 0 with i * stride >= distance.
  static int64_t at_least(int64_t distance, int64_t stride) {
    return distance <= 0 ? 0 : ceil_div(distance, stride);
  }

  void descend(size_t level, int64_t at, int64_t index) {
    starts_[level] = index;
    counts_[level] = 1;
    run(level + 1, at + index * loops_[level].stride);
    starts_[level] = 0;
  }

  void emit_whole(size_t level, int64_t start, int64_t count) {
    for (size_t l = level + 1; l < loops_.size(); ++l) starts_[l] = 0, counts_[l] = loops_[l].count;
    starts_[level] = start;
    counts_[level] = count;
    visit_(starts_, counts_);
    starts_[level] = 0;
    for (size_t l = level; l < loops_.size(); ++l) counts_[l] = 1;
  }

  std::span<const NestLoop> loops_;
  int64_t begin_, end_;
  const NestVisitor& visit_;
  std::vector<int64_t> starts_, counts_, spans_;
};

}  // namespace

void clip_nest(std::span<const NestLoop> loops, int64_t origin, int64_t begin, int64_t end,
               const NestVisitor& visit) {
  Clipper(loops, begin, end, visit).run(0, origin);
}

}  // namespace uckpt
