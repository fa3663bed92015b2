#include "lib/layout/cutting.h"

#include "lib/layout/boxes.h"
#include "lib/layout/copies.h"

namespace uckpt::layout {

Cutting::Cutting(Facts& facts, const Scope& scope, const ucl::Shape& shape, const Shape& whole,
                 std::span<const Coordinate> ranks) {
  ucl::each_factor(shape, [&](const ucl::Factor& f) {
    if (!f.cut) return;
    for (const ucl::CutAxis& a : f.cut->axes) axes_.emplace(facts.whole_of(a.axis.text));
  });
  std::map<std::vector<int64_t>, size_t> known;
  for (const Coordinate& at : ranks) {
    const auto [share, fresh] = known.emplace(key_of(at), places_.size());
    if (fresh) places_.push_back(at);
    shares_.push_back(share->second);
  }
  solver_.emplace(facts, scope, shape, whole, places_);
}

std::vector<int64_t> Cutting::key_of(const Coordinate& at) const {
  std::vector<int64_t> key;
  for (const std::string& axis : axes_) {
    const auto place = at.find(axis);
    key.push_back(place == at.end() ? -1 : place->second);
  }
  return key;
}

Cutting::Part& Cutting::part(size_t share) {
  const auto known = parts_.find(share);
  if (known != parts_.end()) return known->second;
  const Coordinate& at = places_[share];
  return parts_.emplace(share, Part{solver_->local(at), solver_->view(at), std::nullopt}).first->second;
}

void Cutting::add_boxes(const View& view, bool is_primary, Shards& out) const {
  for (const Strand& s : view.strands) {
    std::vector<Walk> nest;
    for (const Step& step : s.steps) nest.push_back({step.count, step.logical, step.local});
    to_boxes(view.logical, s.logical, s.local, std::move(nest),
             [&](int64_t offset, std::span<const Axis> axes) {
               out.boxes.push_back({offset, static_cast<uint32_t>(out.axes.size()),
                                    static_cast<uint8_t>(axes.size()), is_primary});
               out.axes.insert(out.axes.end(), axes.begin(), axes.end());
             });
  }
}

BoxRange Cutting::copy(size_t share, Shards& out) {
  Part& p = part(share);
  if (!p.copy) {
    const auto first = static_cast<uint32_t>(out.boxes.size());
    add_boxes(p.view, false, out);
    p.copy = BoxRange{first, static_cast<uint32_t>(out.boxes.size()) - first};
  }
  return *p.copy;
}

const Cutting::Whole& Cutting::whole(const std::vector<size_t>& shares, Shards& out) {
  const auto [entry, fresh] = wholes_.try_emplace(shares);
  Whole& whole = entry->second;
  if (!fresh) return whole;
  std::vector<View> views;
  for (const size_t share : shares) views.push_back(part(share).view);
  for (const Split& split : split_copies(std::move(views))) {
    const auto first = static_cast<uint32_t>(out.boxes.size());
    add_boxes(split.fresh, true, out);
    add_boxes(split.again, false, out);
    whole.boxes.push_back(
        {{first, static_cast<uint32_t>(out.boxes.size()) - first}, !split.fresh.strands.empty()});
    whole.covered += split.fresh.volume();
  }
  return whole;
}

}  // namespace uckpt::layout
