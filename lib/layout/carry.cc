#include "lib/layout/carry.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/layout/boxes.h"
#include "lib/layout/placing.h"
#include "lib/plan/box.h"

namespace uckpt::layout {

namespace {

using plan::Box;

class Carrier {
 public:
  Carrier(Catalog& catalog, const Strand& strand, int64_t from_numel, int64_t to_numel, int64_t item)
      : catalog_(catalog), strand_(strand), from_numel_(from_numel), to_numel_(to_numel), item_(item) {
    std::vector<Walk> nest;
    for (const Step& s : strand.steps) nest.push_back({s.count, s.local, s.logical});
    to_boxes(from_numel, strand.local, strand.logical, std::move(nest),
             [&](int64_t to, std::span<const Axis> axes) { regions_.push_back(plan::coarsen(to, axes)); });
    for (const Box& r : regions_) {
      hulls_.push_back(plan::hull_of(r.axes));
      all_ = {std::min(all_.first, hulls_.back().first), std::max(all_.last, hulls_.back().last)};
    }
  }

  void carry(PieceRange range, uint32_t index) {
    piece_ = catalog_.pieces[range.first + index];  // a copy: the list grows
    const plan::Hull hull = plan::hull_of(catalog_.axes_of(piece_));
    if (hull.last < all_.first || all_.last < hull.first) return;
    const Box source = plan::coarsen(0, catalog_.axes_of(piece_));
    if (source.volume() == 0) return;
    for (size_t i = 0; i < regions_.size(); ++i) {
      if (hulls_[i].last < hull.first || hull.last < hulls_[i].first) continue;
      const auto cuts = plan::common_cuts(plan::cuts_of(source.axes), plan::cuts_of(regions_[i].axes));
      if (!cuts) return carry_in_runs({range.first + index, 1});
    }
    for (size_t i = 0; i < regions_.size(); ++i) {
      if (hulls_[i].last < hull.first || hull.last < hulls_[i].first) continue;
      const auto cuts = plan::common_cuts(plan::cuts_of(source.axes), plan::cuts_of(regions_[i].axes));
      std::vector<Box> from, to;
      plan::refine(source, *cuts, from);
      plan::refine(regions_[i], *cuts, to);
      for (const Box& a : from)
        for (const Box& b : to) meet(a, b);
    }
  }

 private:
  // `a` in the file and `b` in the new tensor, along the same axes.
  void meet(const Box& a, const Box& b) {
    int64_t from = a.offset, to = b.offset;
    std::vector<Walk> nest;
    for (size_t i = 0; i < a.axes.size(); ++i) {
      const Axis &x = a.axes[i], &y = b.axes[i];
      const int64_t begin = std::max(x.start, y.start);
      const int64_t extent = std::min(x.start + x.extent, y.start + y.extent) - begin;
      if (extent <= 0) return;
      from += (begin - x.start) * x.stride;
      to += (begin - y.start) * y.stride;
      nest.push_back({extent, y.stride, x.stride});
    }
    to_boxes(to_numel_, to, from, std::move(nest), [&](int64_t at, std::span<const Axis> axes) {
      catalog_.add_piece(piece_.file, piece_.record, piece_.offset + at * item_, axes, piece_.flags);
    });
  }

  // The factorings do not nest: run by run of the piece.
  void carry_in_runs(PieceRange piece) {
    place_pieces(catalog_, piece, View{to_numel_, from_numel_, {strand_}}, to_numel_, item_);
  }

  Catalog& catalog_;
  const Strand& strand_;
  const int64_t from_numel_, to_numel_, item_;
  std::vector<Box> regions_;  // of the strand, along the old tensor; strides count elements of the new one
  std::vector<plan::Hull> hulls_;
  plan::Hull all_{INT64_MAX, -1};  // of all regions
  Piece piece_{};
};

// The piece as flat ranges of the tensor.
void add_runs(Catalog& catalog, const Piece& piece, int64_t numel, int64_t item) {
  const Box box = plan::coarsen(0, catalog.axes_of(piece));
  struct Run {
    int64_t to, from;
  };
  std::vector<Run> runs = {{0, 0}};
  int64_t weight = numel;
  for (size_t d = 0; d + 1 < box.axes.size(); ++d) {
    const Axis& a = box.axes[d];
    weight /= a.size;
    std::vector<Run> next;
    if (runs.size() * static_cast<size_t>(a.extent) > kMaxStrands)
      throw refused("layout.too_many_pieces", "a map takes a tensor apart into too many runs");
    for (const Run& r : runs)
      for (int64_t i = 0; i < a.extent; ++i)
        next.push_back({r.to + (a.start + i) * weight, r.from + i * a.stride});
    runs = std::move(next);
  }
  const Axis last = box.axes.empty() ? Axis{1, 0, 1, 1} : box.axes.back();
  for (const Run& r : runs) {
    const Axis run{numel, r.to + last.start, last.extent, last.stride};
    catalog.add_piece(piece.file, piece.record, piece.offset + r.from * item, {&run, 1}, piece.flags);
  }
}

}  // namespace

void carry_pieces(Catalog& catalog, PieceRange pieces, const Strand& strand, int64_t from_numel,
                  int64_t to_numel, int64_t item) {
  Carrier carrier(catalog, strand, from_numel, to_numel, item);
  for (uint32_t i = 0; i < pieces.count; ++i) carrier.carry(pieces, i);
}

PieceRange make_nest(Catalog& catalog, PieceRange last, int64_t numel, int64_t item) {
  plan::Cuts cuts = {numel};
  std::vector<bool> nests;
  for (const Piece& p : catalog.pieces_of(last)) {
    const auto common = plan::common_cuts(cuts, plan::cuts_of(plan::coarsen(0, catalog.axes_of(p)).axes));
    nests.push_back(common.has_value());
    if (common) cuts = *common;
  }
  if (std::all_of(nests.begin(), nests.end(), [](bool n) { return n; })) return last;
  const std::vector<Piece> pieces(catalog.pieces.begin() + last.first, catalog.pieces.end());
  catalog.pieces.resize(last.first);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (nests[i]) {
      catalog.pieces.push_back(pieces[i]);
    } else {
      add_runs(catalog, pieces[i], numel, item);
    }
  }
  return catalog.pieces_since(last.first);
}

Strand tidy(Strand strand) {
  std::erase_if(strand.steps, [](const Step& s) { return s.count == 1; });
  std::stable_sort(strand.steps.begin(), strand.steps.end(),
                   [](const Step& a, const Step& b) { return a.local > b.local; });
  std::vector<Step> merged;
  for (const Step& s : strand.steps) {
    const bool continues = !merged.empty() && merged.back().logical == s.logical * s.count &&
                           merged.back().local == s.local * s.count;
    if (continues) {
      merged.back() = {merged.back().count * s.count, s.logical, s.local};
    } else {
      merged.push_back(s);
    }
  }
  strand.steps = std::move(merged);
  return strand;
}

}  // namespace uckpt::layout
