#include "lib/layout/copies.h"

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/boxes.h"
#include "lib/plan/box.h"

namespace uckpt::layout {

namespace {

using Key = std::vector<int64_t>;

// The elements of a strand, to find the same ones again on another rank.
Key key_of(const Strand& strand) {
  Key key = {strand.logical};
  for (const Step& s : strand.steps) key.insert(key.end(), {s.count, s.logical});
  return key;
}

std::vector<Split> split_strands(const std::vector<View>& views) {
  std::vector<Split> out;
  std::set<Key> seen;
  for (const View& view : views) {
    Split& split = out.emplace_back(Split{{view.logical, view.local, {}}, {view.logical, view.local, {}}});
    for (const Strand& s : view.strands)
      (seen.insert(key_of(s)).second ? split.fresh : split.again).strands.push_back(s);
  }
  return out;
}

// Views whose strands meet without being the same: along their common factoring all are cut wherever one of
// them is. The cells that this makes are the same, or apart.
class Cells {
 public:
  explicit Cells(std::vector<View> views) : numel_(views.empty() ? 1 : views.front().logical) {
    for (const View& view : views) {
      ranks_.push_back({{view.logical, view.local, {}}, {}});
      for (const Strand& s : view.strands) add_boxes(s, ranks_.back().boxes);
    }
    find_lines();
  }

  std::vector<Split> split() {
    std::vector<Split> out;
    for (const Rank& rank : ranks_) {
      Split& split = out.emplace_back(Split{rank.empty, rank.empty});
      for (const plan::Box& box : rank.boxes) cut(box, 0, {}, split);
    }
    return out;
  }

 private:
  struct Rank {
    View empty;
    std::vector<plan::Box> boxes;
  };

  void add_boxes(const Strand& s, std::vector<plan::Box>& boxes) {
    std::vector<Walk> nest;
    for (const Step& step : s.steps) nest.push_back({step.count, step.logical, step.local});
    to_boxes(numel_, s.logical, s.local, std::move(nest), [&](int64_t at, std::span<const Axis> axes) {
      boxes.push_back({at, {axes.begin(), axes.end()}});
    });
  }

  void find_lines() {
    std::optional<plan::Cuts> cuts;
    for (const Rank& rank : ranks_) {
      for (const plan::Box& box : rank.boxes) {
        const plan::Cuts own = plan::cuts_of(box.axes);
        cuts = cuts ? plan::common_cuts(*cuts, own) : own;
        if (!cuts)
          throw refused("layout.copies",
                        "ranks hold the same elements, cut along lines that have no common factoring");
      }
    }
    for (Rank& rank : ranks_) {
      std::vector<plan::Box> fine;
      for (const plan::Box& box : rank.boxes) plan::refine(box, *cuts, fine);
      rank.boxes = std::move(fine);
      for (const plan::Box& box : rank.boxes) {
        lines_.resize(std::max(lines_.size(), box.axes.size()));
        for (size_t a = 0; a < box.axes.size(); ++a)
          lines_[a].insert({box.axes[a].start, box.axes[a].start + box.axes[a].extent});
      }
    }
  }

  void cut(const plan::Box& box, size_t axis, std::vector<Axis> cell, Split& split) {
    if (axis == box.axes.size()) return add(box, cell, split);
    const Axis& whole = box.axes[axis];
    const auto& lines = lines_[axis];
    for (auto line = lines.lower_bound(whole.start); *line < whole.start + whole.extent; ++line) {
      cell.push_back({whole.size, *line, *std::next(line) - *line, whole.stride});
      cut(box, axis + 1, cell, split);
      cell.pop_back();
    }
  }

  void add(const plan::Box& box, const std::vector<Axis>& cell, Split& split) {
    if (++made_ > kMaxStrands)
      throw refused("layout.too_many_pieces",
                    cat("copies part a tensor into more than ", kMaxStrands, " pieces"));
    Strand strand{0, box.offset, {}};
    int64_t weight = numel_;
    for (size_t a = 0; a < cell.size(); ++a) {
      weight /= cell[a].size;
      strand.logical += cell[a].start * weight;
      strand.local += (cell[a].start - box.axes[a].start) * cell[a].stride;
      if (cell[a].extent > 1) strand.steps.push_back({cell[a].extent, weight, cell[a].stride});
    }
    std::stable_sort(strand.steps.begin(), strand.steps.end(),
                     [](const Step& a, const Step& b) { return a.local > b.local; });
    Key key;
    for (const Axis& a : cell) key.push_back(a.start);
    (seen_.insert(std::move(key)).second ? split.fresh : split.again).strands.push_back(std::move(strand));
  }

  const int64_t numel_;
  std::vector<Rank> ranks_;
  std::vector<std::set<int64_t>> lines_;  // of each axis: where boxes begin and end
  std::set<Key> seen_;
  size_t made_ = 0;
};

}  // namespace

std::vector<Split> split_copies(std::vector<View> views) {
  std::vector<Split> out = split_strands(views);
  int64_t volume = 0;
  for (const Split& s : out) volume += s.fresh.volume();
  // Where ranks leave nothing out, more than the whole means that some strands meet.
  const bool apart = views.size() < 2 || volume <= views.front().logical;
  return apart ? out : Cells(std::move(views)).split();
}

}  // namespace uckpt::layout
