#include "lib/layout/boxes.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/view.h"

namespace uckpt::layout {

namespace {

class Boxer {
 public:
  Boxer(int64_t numel, const BoxVisitor& box) : numel_(numel), box_(box) {}

  // `nest` by falling `to`.
  void run(int64_t to, int64_t from, const std::vector<Walk>& nest) {
    const size_t bad = write(to, nest);
    if (bad == nest.size()) {
      if (++made_ > kMaxStrands) {
        throw refused("layout.too_many_pieces",
                      cat("the layout cuts a tensor into more than ", kMaxStrands, " boxes"));
      }
      box_(from, axes_);
      return;
    }
    std::vector<Walk> inner = nest;
    const Walk loop = inner[bad];
    inner.erase(inner.begin() + static_cast<std::ptrdiff_t>(bad));
    for (int64_t i = 0; i < loop.count; ++i) run(to + i * loop.to, from + i * loop.from, inner);
  }

 private:
  // Writes the axes; tells the loop that has to be taken apart, or nest.size().
  size_t write(int64_t to, const std::vector<Walk>& nest) {
    axes_.clear();
    int64_t outer = numel_;
    for (size_t i = 0; i < nest.size(); ++i) {
      const Walk& w = nest[i];
      if (outer % w.to != 0) return cheaper(nest, i);
      const Axis axis{outer / w.to, to / w.to, w.count, w.from};
      if (axis.start + axis.extent > axis.size) return cheaper(nest, i);  // it runs over the loop around it
      axes_.push_back(axis);
      to %= w.to;
      outer = w.to;
    }
    if (outer > 1) axes_.push_back({outer, to, 1, 1});
    return nest.size();
  }

  // Of two neighbours that do not nest, the one with fewer steps.
  static size_t cheaper(const std::vector<Walk>& nest, size_t i) {
    return i > 0 && nest[i - 1].count < nest[i].count ? i - 1 : i;
  }

  const int64_t numel_;
  const BoxVisitor& box_;
  std::vector<Axis> axes_;
  size_t made_ = 0;
};

}  // namespace

void to_boxes(int64_t numel, int64_t to, int64_t from, std::vector<Walk> nest, const BoxVisitor& box) {
  std::erase_if(nest, [](const Walk& w) { return w.count == 1; });
  std::stable_sort(nest.begin(), nest.end(), [](const Walk& a, const Walk& b) { return a.to > b.to; });
  std::vector<Walk> merged;
  for (const Walk& w : nest) {
    if (!merged.empty() && merged.back().to == w.to * w.count && merged.back().from == w.from * w.count) {
      merged.back() = {merged.back().count * w.count, w.to, w.from};
    } else {
      merged.push_back(w);
    }
  }
  Boxer(numel, box).run(to, from, merged);
}

}  // namespace uckpt::layout
