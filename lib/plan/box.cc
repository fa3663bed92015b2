#include "lib/plan/box.h"

#include <algorithm>

namespace uckpt::plan {

int64_t Box::volume() const {
  int64_t v = 1;
  for (const Axis& a : axes) v *= a.extent;
  return v;
}

Box coarsen(int64_t offset, std::span<const Axis> axes) {
  Box out{offset, {}};
  for (const Axis& a : axes) {
    if (a.size == 1) continue;
    if (!out.axes.empty()) {
      Axis& outer = out.axes.back();
      const bool inner_is_whole = a.start == 0 && a.extent == a.size;
      if (inner_is_whole && outer.stride == a.stride * a.size) {
        outer = {outer.size * a.size, outer.start * a.size, outer.extent * a.size, a.stride};
        continue;
      }
    }
    out.axes.push_back(a);
  }
  return out;
}

Cuts cuts_of(std::span<const Axis> axes) {
  Cuts cuts;
  int64_t product = 1;
  for (size_t i = axes.size(); i-- > 0;) {
    product *= axes[i].size;
    cuts.push_back(product);
  }
  if (cuts.empty()) cuts.push_back(1);
  return cuts;
}

std::optional<Cuts> common_cuts(const Cuts& a, const Cuts& b) {
  if (a == b) return a;
  Cuts all;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  if (all.size() > 1 && all.front() == 1) all.erase(all.begin());
  for (size_t i = 0; i + 1 < all.size(); ++i)
    if (all[i + 1] % all[i] != 0) return std::nullopt;
  return all;
}

namespace {

// The boxes of one axis along finer factors. `sizes` is innermost first.
void split_axis(const Axis& axis, std::span<const int64_t> sizes, std::vector<Box>& out) {
  if (sizes.size() == 1) {
    out.push_back({0, {axis}});
    return;
  }
  const int64_t inner = sizes[0];
  const std::span<const int64_t> outer_sizes = sizes.subspan(1);
  const auto emit = [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
    if (rows == 0 || columns == 0) return;
    std::vector<Box> outer_boxes;
    split_axis({axis.size / inner, row, rows, axis.stride * inner}, outer_sizes, outer_boxes);
    for (Box& b : outer_boxes) {
      // The outer offset is counted from the outer interval's own start; add the way from the axis' start to
      // it.
      b.offset += (row * inner + column - axis.start) * axis.stride;
      b.axes.push_back({inner, column, columns, axis.stride});
      out.push_back(std::move(b));
    }
  };
  const int64_t begin = axis.start, end = axis.start + axis.extent;
  const int64_t first_row = begin / inner, last_row = (end - 1) / inner;
  if (first_row == last_row) {
    emit(first_row, 1, begin % inner, axis.extent);
    return;
  }
  const int64_t head = begin % inner == 0 ? 0 : inner - begin % inner;
  const int64_t tail = end % inner;
  emit(first_row, head > 0, begin % inner, head);
  const int64_t whole_from = first_row + (head > 0), whole_to = end / inner;
  emit(whole_from, whole_to - whole_from, 0, inner);
  emit(whole_to, tail > 0, 0, tail);
}

}  // namespace

void refine(const Box& box, const Cuts& cuts, std::vector<Box>& out) {
  if (box.volume() == 0) return;
  std::vector<Box> done = {{box.offset, {}}};
  size_t cut = cuts.size();  // cuts[cut - 1] is the product down to and including the axis at hand
  int64_t product = cuts.back();
  if (cuts.back() == 1) {  // a single element: no axes
    out.push_back({box.offset, {}});
    return;
  }
  for (const Axis& axis : box.axes) {
    const int64_t inner_product = product / axis.size;
    std::vector<int64_t> sizes;  // innermost first, built outermost first and reversed
    while (cut > 0 && product > inner_product) {
      const int64_t next = cut >= 2 ? cuts[cut - 2] : 1;
      sizes.push_back(product / next);
      product = next;
      --cut;
    }
    std::reverse(sizes.begin(), sizes.end());
    std::vector<Box> parts;
    split_axis(axis, sizes, parts);
    std::vector<Box> next_done;
    for (const Box& left : done) {
      for (const Box& right : parts) {
        Box joined = left;
        joined.offset += right.offset;
        joined.axes.insert(joined.axes.end(), right.axes.begin(), right.axes.end());
        next_done.push_back(std::move(joined));
      }
    }
    done = std::move(next_done);
  }
  std::move(done.begin(), done.end(), std::back_inserter(out));
}

Hull hull_of(std::span<const Axis> axes) {
  Hull h{0, 0};
  int64_t weight = 1;
  for (size_t i = axes.size(); i-- > 0;) {
    h.first += axes[i].start * weight;
    h.last += (axes[i].start + axes[i].extent - 1) * weight;
    weight *= axes[i].size;
  }
  return h;
}

namespace {

using BoxRefs = std::vector<const Box*>;

// Do two of these boxes, all along one factoring and agreeing on the axes before `axis`, meet?
// Swept axis by axis: boxes whose intervals do not touch are never compared.
bool any_meet(BoxRefs& boxes, size_t axis) {
  if (boxes.size() < 2) return false;
  if (axis == boxes.front()->axes.size()) return true;
  std::sort(boxes.begin(), boxes.end(),
            [&](const Box* a, const Box* b) { return a->axes[axis].start < b->axes[axis].start; });
  for (size_t i = 0; i < boxes.size();) {
    // A cluster: intervals that overlap in a chain. Every edge inside it starts a new slab to look at.
    int64_t end = boxes[i]->axes[axis].start + boxes[i]->axes[axis].extent;
    size_t j = i + 1;
    std::vector<int64_t> edges = {boxes[i]->axes[axis].start};
    for (; j < boxes.size() && boxes[j]->axes[axis].start < end; ++j) {
      const Axis& a = boxes[j]->axes[axis];
      if (a.start != edges.back()) edges.push_back(a.start);
      end = std::max(end, a.start + a.extent);
    }
    if (j - i > 1) {
      for (int64_t edge : edges) {
        BoxRefs slab;
        for (size_t k = i; k < j; ++k) {
          const Axis& a = boxes[k]->axes[axis];
          if (a.start <= edge && edge < a.start + a.extent) slab.push_back(boxes[k]);
        }
        if (any_meet(slab, axis + 1)) return true;
      }
    }
    i = j;
  }
  return false;
}

}  // namespace

std::optional<CoverProblem> find_cover_problem(std::span<const Box> boxes, int64_t numel) {
  int64_t covered = 0;
  for (const Box& b : boxes) covered += b.volume();
  // The common case, flat ranges in order, needs no refinement.
  bool in_order = true;
  int64_t last = -1;
  for (const Box& b : boxes) {
    if (b.volume() == 0) continue;
    const Hull h = hull_of(b.axes);
    in_order &= h.first > last;
    last = std::max(last, h.last);
  }
  if (!in_order) {
    Cuts cuts = {numel};
    for (const Box& b : boxes) {
      const auto joined = common_cuts(cuts, cuts_of(b.axes));
      if (!joined) return CoverProblem{CoverProblem::kFactoring, covered};
      cuts = *joined;
    }
    std::vector<Box> fine;
    for (const Box& b : boxes) refine(b, cuts, fine);
    BoxRefs refs;
    for (const Box& b : fine) refs.push_back(&b);
    if (any_meet(refs, 0)) return CoverProblem{CoverProblem::kOverlap, covered};
  }
  if (covered != numel)
    return CoverProblem{covered < numel ? CoverProblem::kHole : CoverProblem::kOverlap, covered};
  return std::nullopt;
}

}  // namespace uckpt::plan
