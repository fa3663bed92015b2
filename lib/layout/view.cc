#include "lib/layout/view.h"

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/tensor/nest.h"

namespace uckpt::layout {

namespace {

// Adds an inner step, as one with the step around it where both sides allow.
void add_step(std::vector<Step>& steps, Step inner) {
  if (inner.count == 1) return;
  if (!steps.empty()) {
    Step& outer = steps.back();
    if (outer.logical == inner.logical * inner.count && outer.local == inner.local * inner.count) {
      outer = {outer.count * inner.count, inner.logical, inner.local};
      return;
    }
  }
  steps.push_back(inner);
}

void check_count(size_t count) {
  if (count > kMaxStrands) {
    throw refused("layout.too_many_pieces",
                  cat("the shape cuts a tensor into more than ", kMaxStrands, " pieces"));
  }
}

}  // namespace

int64_t Strand::volume() const {
  int64_t volume = 1;
  for (const Step& s : steps) volume *= s.count;
  return volume;
}

bool Strand::same_elements(const Strand& other) const {
  if (logical != other.logical || steps.size() != other.steps.size()) return false;
  for (size_t i = 0; i < steps.size(); ++i)
    if (steps[i].count != other.steps[i].count || steps[i].logical != other.steps[i].logical) return false;
  return true;
}

int64_t View::volume() const {
  int64_t volume = 0;
  for (const Strand& s : strands) volume += s.volume();
  return volume;
}

View unit_view() { return {1, 1, {Strand{}}}; }

View axis_view(int64_t size, int64_t padded) {
  View view{size, padded, {}};
  if (size == 0) return view;
  Strand strand;
  add_step(strand.steps, {size, 1, 1});
  view.strands.push_back(std::move(strand));
  return view;
}

View product(const View& outer, const View& inner) {
  View view{outer.logical * inner.logical, outer.local * inner.local, {}};
  check_count(outer.strands.size() * inner.strands.size());
  for (const Strand& o : outer.strands) {
    for (const Strand& i : inner.strands) {
      Strand strand{o.logical * inner.logical + i.logical, o.local * inner.local + i.local, {}};
      for (const Step& s : o.steps)
        add_step(strand.steps, {s.count, s.logical * inner.logical, s.local * inner.local});
      for (const Step& s : i.steps) add_step(strand.steps, s);
      view.strands.push_back(std::move(strand));
    }
  }
  return view;
}

View concatenation(std::span<const View> blocks) {
  View view{0, 0, {}};
  for (const View& block : blocks) {
    check_count(view.strands.size() + block.strands.size());
    for (Strand strand : block.strands) {
      strand.logical += view.logical;
      strand.local += view.local;
      view.strands.push_back(std::move(strand));
    }
    view.logical += block.logical;
    view.local += block.local;
  }
  return view;
}

View share(const View& whole, int64_t begin, int64_t end) {
  View view{whole.logical, end - begin, {}};
  std::vector<NestLoop> loops;
  for (const Strand& s : whole.strands) {
    loops.clear();
    for (const Step& step : s.steps) loops.push_back({step.count, step.local});
    clip_nest(loops, s.local, begin, end,
              [&](std::span<const int64_t> starts, std::span<const int64_t> counts) {
                check_count(view.strands.size() + 1);
                Strand part{s.logical, s.local - begin, {}};
                for (size_t i = 0; i < starts.size(); ++i) {
                  part.logical += starts[i] * s.steps[i].logical;
                  part.local += starts[i] * s.steps[i].local;
                }
                for (size_t i = 0; i < starts.size(); ++i)
                  add_step(part.steps, {counts[i], s.steps[i].logical, s.steps[i].local});
                view.strands.push_back(std::move(part));
              });
  }
  return view;
}

}  // namespace uckpt::layout
