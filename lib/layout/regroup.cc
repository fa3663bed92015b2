#include "lib/layout/regroup.h"

#include <algorithm>
#include <map>

#include "lib/base/checked.h"
#include "lib/layout/carry.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

using FactorKind = ucl::Factor::Kind;

// A term of a part as a loop nest over the tensor's row-major order.
struct TermNest {
  struct Axis {
    std::string name;
    int64_t size, stride;
  };
  std::vector<std::string> labels;
  std::vector<Axis> axes;
  int64_t offset = 0;

  const Axis* axis(std::string_view name) const {
    const auto found = std::find_if(axes.begin(), axes.end(), [&](const Axis& a) { return a.name == name; });
    return found == axes.end() ? nullptr : &*found;
  }
};

// Builds the nests from the innermost factor outwards.
class Nester {
 public:
  explicit Nester(const MapSizes& sizes) : sizes_(sizes) {}

  std::vector<TermNest> of(const ucl::Part& part) {
    terms_.emplace_back();
    const auto ellipsis = part.shape ? part.shape->ellipsis : ucl::Ellipsis::kFirst;
    if (ellipsis == ucl::Ellipsis::kLast) add_axis("...", sizes_.size("...").value_or(0));
    if (part.shape)
      for (size_t d = part.shape->dims.size(); d-- > 0;) add(part.shape->dims[d]);
    if (ellipsis == ucl::Ellipsis::kFirst) add_axis("...", sizes_.size("...").value_or(0));
    for (TermNest& t : terms_) {
      if (part.label) t.labels.push_back(part.label->text);
      std::sort(t.labels.begin(), t.labels.end());
    }
    return std::move(terms_);
  }

 private:
  void add_axis(const std::string& name, int64_t size) {
    for (TermNest& t : terms_) t.axes.push_back({name, size, weight_});
    weight_ *= size;
  }

  void add(const ucl::Dim& dim) {
    for (size_t f = dim.factors.size(); f-- > 0;) add(dim.factors[f]);
  }

  void add(const ucl::Factor& f) {
    if (f.kind == FactorKind::kGroup) return add(f.blocks[0].dim);
    const int64_t size = sizes_.size(f).value_or(0);
    if (f.kind == FactorKind::kAxis) return add_axis(f.axis.text, size);
    if (f.kind == FactorKind::kConcat) add_blocks(f.blocks);
    if (f.kind == FactorKind::kNumber) weight_ *= size;
  }

  void add_blocks(const std::vector<ucl::Block>& blocks) {
    const std::vector<TermNest> inner = std::move(terms_);
    const int64_t weight = weight_;
    std::vector<TermNest> sum;
    int64_t begin = 0;
    for (const ucl::Block& b : blocks) {
      terms_ = inner;
      weight_ = weight;
      for (TermNest& t : terms_) {
        t.labels.push_back(b.label.text);
        t.offset += begin * weight;
      }
      add(b.dim);
      std::move(terms_.begin(), terms_.end(), std::back_inserter(sum));
      begin += sizes_.size(b.dim).value_or(0);
    }
    terms_ = std::move(sum);
    weight_ = weight * begin;
  }

  const MapSizes& sizes_;
  std::vector<TermNest> terms_;
  int64_t weight_ = 1;
};

using Names = std::vector<std::string>;

// A term's axes, those in the name too: what it is found by on the other side.
Names key_of(const TermNest& term, const ucl::Part& part) {
  Names key;
  for (const TermNest::Axis& a : term.axes) key.push_back(a.name);
  for (const ucl::Capture* c : part.name.captures()) key.push_back(c->name.text);
  std::sort(key.begin(), key.end());
  key.erase(std::unique(key.begin(), key.end()), key.end());
  key.emplace_back();  // labels follow
  key.insert(key.end(), term.labels.begin(), term.labels.end());
  return key;
}

Names captures_of(const ucl::Part& part) {
  Names out;
  for (const ucl::Capture* c : part.name.captures())
    if (std::find(out.begin(), out.end(), c->name.text) == out.end()) out.push_back(c->name.text);
  return out;
}

bool has(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Route route_of(const TermNest& from, const Names& source_free, const TermNest& to, const Names& target_free) {
  Route route;
  route.strand.local = from.offset;
  route.strand.logical = to.offset;
  for (const TermNest::Axis& a : from.axes)
    if (const TermNest::Axis* b = to.axis(a.name))
      route.strand.steps.push_back({a.size, b->stride, a.stride});
  route.strand = tidy(std::move(route.strand));
  for (const std::string& c : source_free) {
    const auto at = std::find(target_free.begin(), target_free.end(), c);
    const TermNest::Axis* axis = to.axis(c);
    route.picks.push_back(at != target_free.end()
                              ? Route::Pick{static_cast<size_t>(at - target_free.begin()), 0}
                              : Route::Pick{std::nullopt, axis ? axis->stride : 0});
  }
  for (const std::string& c : target_free) {
    const TermNest::Axis* axis = from.axis(c);
    route.offsets.push_back(axis ? axis->stride : 0);
  }
  return route;
}

}  // namespace

FreeCaptures::FreeCaptures(const MapRuleRef& rule) {
  std::map<std::string, size_t> count;
  const size_t parts = rule.source().parts.size() + rule.target().parts.size();
  const auto collect = [&](const ucl::Side& side, std::vector<Names>& out) {
    for (const ucl::Part& p : side.parts) {
      out.push_back(captures_of(p));
      for (const std::string& c : out.back()) ++count[c];
      if (!p.shape) continue;
      ucl::each_factor(*p.shape, [&](const ucl::Factor& f) {
        if (f.kind == FactorKind::kAxis) axes_.push_back(f.axis.text);
      });
    }
  };
  collect(rule.source(), source_);
  collect(rule.target(), target_);
  for (auto* side : {&source_, &target_})
    for (Names& names : *side) std::erase_if(names, [&](const std::string& c) { return count[c] == parts; });
}

bool FreeCaptures::is_free(std::string_view name) const {
  const auto in = [&](const Names& names) { return has(names, name); };
  return std::any_of(source_.begin(), source_.end(), in) || std::any_of(target_.begin(), target_.end(), in);
}

bool FreeCaptures::any() const {
  const auto some = [](const Names& names) { return !names.empty(); };
  return std::any_of(source_.begin(), source_.end(), some) ||
         std::any_of(target_.begin(), target_.end(), some);
}

bool FreeCaptures::is_axis(std::string_view name) const { return has(axes_, name); }

bool FreeCaptures::in_source(std::string_view name) const {
  return std::any_of(source_.begin(), source_.end(), [&](const Names& names) { return has(names, name); });
}

std::optional<Regrouping> regroup(const MapRuleRef& rule, const FreeCaptures& free, const MapSizes& sizes,
                                  size_t& too_large) {
  Regrouping out;
  struct Source {
    TermNest nest;
    size_t part;
  };
  std::map<Names, Source> sources;
  for (size_t p = 0; p < rule.source().parts.size(); ++p) {
    const ucl::Part& part = rule.source().parts[p];
    const auto shape = sizes.shape(part);
    const auto numel = shape ? checked_product(*shape) : std::nullopt;
    if (!numel) {
      too_large = 0;
      return std::nullopt;
    }
    out.sources.push_back(*shape);
    if (*numel == 0) continue;
    for (TermNest& t : Nester(sizes).of(part)) {
      Names key = key_of(t, part);
      sources.emplace(std::move(key), Source{std::move(t), p});
    }
  }
  for (size_t p = 0; p < rule.target().parts.size(); ++p) {
    const ucl::Part& part = rule.target().parts[p];
    const auto shape = sizes.shape(part);
    const auto numel = shape ? checked_product(*shape) : std::nullopt;
    if (!numel) {
      too_large = p;
      return std::nullopt;
    }
    TargetPart target{*shape, *numel, {}};
    if (*numel > 0) {
      for (const TermNest& t : Nester(sizes).of(part)) {
        const auto from = sources.find(key_of(t, part));
        if (from == sources.end()) continue;  // it has no elements
        Route route = route_of(from->second.nest, free.of_source(from->second.part), t, free.of_target(p));
        if (route.strand.volume() == 0) continue;
        route.part = from->second.part;
        route.target_part = p;
        target.routes.push_back(std::move(route));
      }
    }
    out.targets.push_back(std::move(target));
  }
  return out;
}

}  // namespace uckpt::layout
