#include "lib/layout/placing.h"

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/boxes.h"

namespace uckpt::layout {

namespace {

// The box of a piece as loops over the fragment's flat index, the innermost last.
struct Loops {
  int64_t begin = 0;        // flat index of the first element
  std::vector<Walk> loops;  // `to`: in the fragment, `from`: in the file
};

Loops loops_of(std::span<const Axis> axes) {
  Loops out;
  int64_t weight = 1;
  std::vector<Walk> inside_out;
  for (size_t i = axes.size(); i-- > 0;) {
    const Axis& a = axes[i];
    out.begin += a.start * weight;
    const Walk walk{a.extent, weight, a.stride};
    weight *= a.size;
    if (walk.count == 1) continue;
    if (!inside_out.empty() && inside_out.back().to * inside_out.back().count == walk.to &&
        inside_out.back().from * inside_out.back().count == walk.from) {
      inside_out.back().count *= walk.count;
    } else {
      inside_out.push_back(walk);
    }
  }
  out.loops.assign(inside_out.rbegin(), inside_out.rend());
  return out;
}

class Placer {
 public:
  Placer(Catalog& catalog, const Piece& piece, const View& view, int64_t numel, int64_t item)
      : catalog_(catalog), piece_(piece), view_(view), numel_(numel), item_(item) {}

  // Interval by interval of the fragment: a flat cut is one.
  void run(std::span<const Walk> loops, int64_t begin, int64_t from) {
    const bool interval = loops.empty() || (loops.size() == 1 && loops[0].to == 1);
    if (interval) return place(begin, loops.empty() ? Walk{1, 1, 1} : loops[0], from);
    for (int64_t i = 0; i < loops[0].count; ++i)
      run(loops.subspan(1), begin + i * loops[0].to, from + i * loops[0].from);
  }

 private:
  void place(int64_t begin, const Walk& run, int64_t from) {
    if (++intervals_ > static_cast<int64_t>(kMaxStrands)) {
      throw refused("layout.too_many_pieces", "a fragment lies in too many strided runs to be joined");
    }
    const View part = share(view_, begin, begin + run.count);
    for (const Strand& s : part.strands) {
      std::vector<Walk> nest;
      for (const Step& step : s.steps) nest.push_back({step.count, step.logical, step.local * run.from});
      to_boxes(numel_, s.logical, from + s.local * run.from, std::move(nest),
               [&](int64_t at, std::span<const Axis> axes) {
                 catalog_.add_piece(piece_.file, piece_.record, piece_.offset + at * item_, axes,
                                    piece_.flags);
               });
    }
  }

  Catalog& catalog_;
  const Piece piece_;
  const View& view_;
  const int64_t numel_, item_;
  int64_t intervals_ = 0;
};

}  // namespace

void place_pieces(Catalog& catalog, PieceRange fragment, const View& view, int64_t numel, int64_t item) {
  for (uint32_t i = 0; i < fragment.count; ++i) {
    const Piece piece = catalog.pieces[fragment.first + i];  // a copy: the list grows
    const Loops loops = loops_of(catalog.axes_of(piece));
    Placer(catalog, piece, view, numel, item).run(loops.loops, loops.begin, 0);
  }
}

}  // namespace uckpt::layout
