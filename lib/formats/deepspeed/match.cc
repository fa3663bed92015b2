#include "lib/formats/deepspeed/match.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

constexpr size_t kMostStates = 1 << 20;
constexpr size_t kFrozen = ~size_t{0};  // in place of a group

using Groups = std::vector<std::vector<std::optional<Shape>>>;
// How far every group has come.
using Progress = std::vector<uint32_t>;
// The progress possible after the first k shapes; true if it leads to the end.
using Layer = std::map<Progress, bool>;

class Matcher {
 public:
  Matcher(const std::vector<Shape>& shapes, const Groups& groups) : shapes_(shapes), groups_(groups) {
    for (const auto& g : groups) {
      full_.push_back(static_cast<uint32_t>(g.size()));
      wanted_ += g.size();
    }
  }

  Match run(std::vector<std::vector<size_t>>& out) {
    if (wanted_ > shapes_.size()) return Match::kNone;
    if (!forward()) return Match::kSeveral;
    const auto end = layers_.back().find(full_);
    if (end == layers_.back().end()) return Match::kNone;
    end->second = true;
    return backward(out) ? Match::kUnique : Match::kSeveral;
  }

 private:
  // Calls `step(group, progress)` for all that may become of the k-th shape.
  template <class Step>
  void each_step(size_t k, const Progress& at, const Step& step) const {
    size_t taken = 0;
    for (const uint32_t n : at) taken += n;
    if (k - taken < shapes_.size() - wanted_) step(kFrozen, at);
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (at[g] == full_[g]) continue;
      const auto& shape = groups_[g][at[g]];
      if (shape && *shape != shapes_[k]) continue;
      Progress to = at;
      ++to[g];
      step(g, to);
    }
  }

  // False if there are too many possibilities to try.
  bool forward() {
    layers_.assign(1, Layer{{Progress(groups_.size(), 0), false}});
    size_t states = 1;
    for (size_t k = 0; k < shapes_.size(); ++k) {
      Layer next;
      for (const auto& [at, alive] : layers_[k]) {
        each_step(k, at, [&](size_t, const Progress& to) { next.emplace(to, false); });
      }
      states += next.size();
      if (states > kMostStates) return false;
      layers_.push_back(std::move(next));
    }
    return true;
  }

  // Keeps what leads to the end. False if an entry with a state could take several shapes.
  bool backward(std::vector<std::vector<size_t>>& out) {
    out.clear();
    for (const auto& g : groups_) out.emplace_back(g.size(), kNoMatch);
    std::vector<std::vector<bool>> several;
    for (const auto& g : groups_) several.emplace_back(g.size(), false);
    bool unique = true;
    for (size_t k = shapes_.size(); k-- > 0;) {
      for (auto& [at, alive] : layers_[k]) {
        each_step(k, at, [&, &from = at, &is_alive = alive](size_t g, const Progress& to) {
          const auto next = layers_[k + 1].find(to);
          if (next == layers_[k + 1].end() || !next->second) return;
          is_alive = true;
          if (g == kFrozen) return;
          size_t& taken = out[g][from[g]];
          if (several[g][from[g]] || taken == k) return;
          if (taken == kNoMatch) {
            taken = k;
            return;
          }
          several[g][from[g]] = true;
          taken = kNoMatch;
          unique &= !groups_[g][from[g]].has_value();
        });
      }
    }
    return unique;
  }

  const std::vector<Shape>& shapes_;
  const Groups& groups_;
  Progress full_;
  size_t wanted_ = 0;
  std::vector<Layer> layers_;
};

// True if every shape wanted is that of one parameter only; those without a shape get none.
bool match_by_shape(const std::vector<Shape>& shapes, const Groups& groups,
                    std::vector<std::vector<size_t>>& out) {
  std::map<Shape, size_t> only;
  for (size_t k = 0; k < shapes.size(); ++k) {
    const auto [at, is_new] = only.emplace(shapes[k], k);
    if (!is_new) at->second = kNoMatch;
  }
  out.clear();
  size_t wanted = 0;
  for (const auto& group : groups) {
    auto& taken = out.emplace_back(group.size(), kNoMatch);
    wanted += group.size();
    for (size_t i = 0; i < group.size(); ++i) {
      if (!group[i]) continue;
      const auto at = only.find(*group[i]);
      if (at == only.end() || at->second == kNoMatch) return false;
      taken[i] = at->second;
      at->second = kNoMatch;  // a second number of this shape fits none
    }
  }
  return wanted <= shapes.size();
}

}  // namespace

Match match_in_order(const std::vector<Shape>& shapes, const Groups& groups,
                     std::vector<std::vector<size_t>>& out) {
  return Matcher(shapes, groups).run(out);
}

Match match_numbers(const std::vector<Shape>& shapes, const Groups& groups,
                    std::vector<std::vector<size_t>>& out, bool& is_proven) {
  is_proven = match_by_shape(shapes, groups, out);
  const auto has_shape = [](const std::optional<Shape>& shape) { return shape.has_value(); };
  const bool is_whole =
      std::ranges::all_of(groups, [&](const auto& group) { return std::ranges::all_of(group, has_shape); });
  if (is_proven && is_whole) return Match::kUnique;
  // The order may tell more: which entries without a state are which.
  std::vector<std::vector<size_t>> in_order;
  const Match match = match_in_order(shapes, groups, in_order);
  if (match == Match::kUnique) out = std::move(in_order);
  return is_proven ? Match::kUnique : match;
}

std::string order_assumed(std::string_view optimizer) {
  return cat("the states of the optimizer", optimizer.empty() ? "" : cat(" `", escape(optimizer, 60), "`"),
             " have numbers, not names, and shapes do not tell them apart: taken to be in the order of the "
             "model's parameters");
}

std::optional<Shape> shape_of_states(const std::vector<std::pair<std::string_view, Shape>>& states) {
  const auto find = [&](std::string_view wanted) -> const Shape* {
    for (const auto& [name, shape] : states)
      if (name == wanted && !shape.empty()) return &shape;
    return nullptr;
  };
  for (const char* name : {"exp_avg", "momentum_buffer"})
    if (const Shape* shape = find(name)) return *shape;
  if (const Shape* rows = find("row_var"), *columns = find("col_var"); rows && columns) {
    Shape out(rows->begin(), rows->end() - 1);  // the last dim is kept, as 1
    out.push_back(columns->back());
    return out;
  }
  if (const Shape* rows = find("exp_avg_sq_row"), *columns = find("exp_avg_sq_col"); rows && columns) {
    Shape out = *rows;
    out.push_back(columns->back());
    return out;
  }
  std::optional<Shape> out;
  for (const auto& [name, shape] : states) {
    if (shape.empty()) continue;
    if (out && *out != shape) return std::nullopt;
    out = shape;
  }
  return out;
}

std::vector<size_t> views_that_fill(const std::vector<MemoryView>& views, int64_t numel) {
  std::map<std::string_view, std::vector<size_t>> by_memory;
  for (size_t i = 0; i < views.size(); ++i) by_memory[views[i].memory].push_back(i);
  std::vector<std::vector<size_t>> fitting;
  for (auto& [memory, list] : by_memory) {
    std::ranges::stable_sort(list, {}, [&](size_t i) { return views[i].offset; });
    int64_t next = 0;
    for (const size_t i : list) {
      if (views[i].offset != next) break;
      const bool is_too_much = views[i].numel > numel - next;
      next = is_too_much ? -1 : next + views[i].numel;
      if (is_too_much) break;
    }
    if (next == numel) fitting.push_back(std::move(list));
  }
  return fitting.size() == 1 ? std::move(fitting[0]) : std::vector<size_t>();
}

}  // namespace uckpt::deepspeed
