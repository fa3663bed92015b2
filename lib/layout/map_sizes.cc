#include "lib/layout/map_sizes.h"

#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

using FactorKind = ucl::Factor::Kind;

constexpr Unknown kLocalBit = 0x80000000;  // unknowns of this match, beside those of the program

bool has_unwritten(const ucl::Part& part) {
  return !part.shape || part.shape->ellipsis != ucl::Ellipsis::kNone;
}
size_t written(const ucl::Part& part) { return part.shape ? part.shape->dims.size() : 0; }

}  // namespace

MapSizes::MapSizes(Facts& facts, Scope scope, std::vector<Source> sources,
                   const std::map<std::string, int64_t, std::less<>>& counts)
    : facts_(facts), scope_(scope), sources_(std::move(sources)), counts_(counts) {
  bool is_first = true;
  for (const Source& s : sources_) {
    const size_t rank = s.shape.size(), dims = written(*s.part);
    if (!has_unwritten(*s.part)) {
      if (rank != dims && !misfit_) misfit_ = &s;
      continue;
    }
    if (rank < dims) {
      if (!misfit_) misfit_ = &s;
      continue;
    }
    const bool behind = s.part->shape && s.part->shape->ellipsis == ucl::Ellipsis::kLast;
    const auto begin = s.shape.begin() + static_cast<std::ptrdiff_t>(behind ? dims : 0);
    Shape rest(begin, begin + static_cast<std::ptrdiff_t>(rank - dims));
    if (!is_first && rest != unwritten_ && !misfit_) misfit_ = &s;
    if (is_first) unwritten_ = std::move(rest);
    is_first = false;
  }
}

Linear MapSizes::get(Unknown unknown) const {
  if (!(unknown & kLocalBit)) return facts_.get(unknown);
  const auto& value = locals_[unknown & ~kLocalBit].value;
  return value ? Linear::known(*value) : Linear::of(unknown);
}

bool MapSizes::set(Unknown unknown, const Fraction& value, const std::string& from) {
  if (!value.is_whole() || value.over < 0) return false;
  if (!(unknown & kLocalBit)) return facts_.set(unknown, value.over, from);
  locals_[unknown & ~kLocalBit].value = value.over;
  return true;
}

Linear MapSizes::axis(std::string_view name) const {
  if (const auto fact = facts_.find(scope_, name)) return get(*fact);
  const auto [entry, fresh] = keys_.try_emplace(std::string(name), static_cast<Unknown>(locals_.size()));
  if (fresh) locals_.push_back({std::string(name), std::nullopt});
  return get(entry->second | kLocalBit);
}

Linear MapSizes::linear(const ucl::Factor& f) const {
  if (f.kind == FactorKind::kAxis) return axis(f.axis.text);
  if (f.kind == FactorKind::kNumber) return Linear::known(f.number);
  Linear sum = Linear::known(0);
  for (const ucl::Block& b : f.blocks) sum = sum + linear(b.dim);
  return sum;
}

Linear MapSizes::linear(const ucl::Dim& dim) const {
  Linear out = Linear::known(1);
  for (const ucl::Factor& f : dim.factors) out = out * linear(f);
  return out;
}

bool MapSizes::equate(const Linear& a, int64_t b, const std::string& from) {
  Unknown unknown = kNobody;
  const auto found = Linear::solve(a, Linear::known(b), unknown);
  return found && set(unknown, *found, from);
}

template <class See>
bool MapSizes::each_dim(const See& see) const {
  for (const Source& s : sources_) {
    const size_t dims = written(*s.part);
    const bool behind = s.part->shape && s.part->shape->ellipsis == ucl::Ellipsis::kFirst;
    for (size_t d = 0; d < dims; ++d) {
      const size_t at = behind ? s.shape.size() - dims + d : d;
      if (!see(s.part->shape->dims[d], s.shape[at], s)) return false;
    }
  }
  return true;
}

bool MapSizes::advance() {
  if (misfit_) return false;
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (const auto& [name, count] : counts_)
      again |= equate(axis(name), count, cat("the names with `", name, "`"));
    each_dim([&](const ucl::Dim& dim, int64_t size, const Source& s) {
      again |= equate(linear(dim), size, cat("tensors of shape ", shape_text(s.shape)));
      return true;
    });
    any |= again;
  }
  return any;
}

bool MapSizes::solved() const {
  if (misfit_) return true;  // nothing will help
  return each_dim([&](const ucl::Dim& dim, int64_t, const Source&) {
    bool known = true;
    ucl::each_factor(dim, [&](const ucl::Factor& f) {
      known &= f.kind != FactorKind::kAxis || axis(f.axis.text).is_known();
    });
    return known;
  });
}

std::string MapSizes::sizes_text(const ucl::Dim& dim) const {
  std::string out;
  std::set<std::string> seen;
  ucl::each_factor(dim, [&](const ucl::Factor& f) {
    if (f.kind != FactorKind::kAxis || !seen.insert(f.axis.text).second) return;
    if (const auto value = axis(f.axis.text).value())
      out += cat(out.empty() ? "" : ", ", f.axis.text, " = ", *value);
  });
  return out;
}

bool MapSizes::check_dim(const ucl::Dim& dim, int64_t found, const Source& source,
                         ucl::Diagnostics& diagnostics) const {
  const Linear size = linear(dim);
  const std::string tensor = cat("`", escape(source.name, 100), "`"), sizes = sizes_text(dim);
  Unknown unknown = kNobody;
  const auto solution = Linear::solve(size, Linear::known(found), unknown);
  const bool wrong =
      size.is_known() ? size.value() != found : solution && (!solution->is_whole() || solution->over < 0);
  if (wrong) {
    const auto value = size.value();
    diagnostics.error(
        scope_.file->source, dim.span, "ucl.size_conflict",
        cat(tensor, " has ", found, " here (", shape_text(source.shape), ")",
            value ? cat(", but the rule gives ", *value) : std::string(", which the rule cannot give"),
            sizes.empty() ? "" : cat(" with ", sizes)));
    return false;
  }
  std::string names;
  ucl::each_factor(dim, [&](const ucl::Factor& f) {
    const std::string quoted = cat("`", f.axis.text, "`");
    if (f.kind == FactorKind::kAxis && !axis(f.axis.text).is_known() && names.find(quoted) == names.npos)
      names += cat(names.empty() ? "" : ", ", quoted);
  });
  if (names.empty()) return true;
  diagnostics
      .error(
          scope_.file->source, dim.span, "ucl.size_unknown",
          cat("the size of ", names, " stays unknown: ", tensor, " has the shape ", shape_text(source.shape)))
      .hint("say it with `where NAME = N`, or with a `given` and --set NAME=N");
  return false;
}

bool MapSizes::check(ucl::Diagnostics& diagnostics) const {
  if (misfit_) {
    const ucl::Part& part = *misfit_->part;
    const size_t dims = written(part);
    const bool too_few = misfit_->shape.size() < dims || !has_unwritten(part);
    diagnostics.error(scope_.file->source, part.shape ? part.shape->span : part.name.span, "ucl.rank",
                      cat("`", escape(misfit_->name, 100), "` has the shape ", shape_text(misfit_->shape),
                          too_few ? cat(", expected ", dims,
                                        has_unwritten(part) ? " or more dims"
                                        : dims == 1         ? " dim"
                                                            : " dims")
                                  : cat(", expected ", shape_text(unwritten_), " for `...`, as in `",
                                        escape(sources_.front().name, 100), "`")));
    return false;
  }
  for (const auto& [name, count] : counts_) {
    const auto value = axis(name).value();
    if (value == count) continue;
    diagnostics.error(
        scope_.file->source, sources_.front().part->name.span, "ucl.size_conflict",
        cat("the names have ", count, " numbers for `", name, "`, expected ", value.value_or(0)));
    return false;
  }
  return each_dim([&](const ucl::Dim& dim, int64_t found, const Source& source) {
    return check_dim(dim, found, source, diagnostics);
  });
}

std::optional<int64_t> MapSizes::size(std::string_view axis_name) const {
  if (axis_name == "...") return checked_product(unwritten_);
  return axis(axis_name).value();
}

std::optional<Shape> MapSizes::shape(const ucl::Part& part) const {
  Shape out;
  if (part.shape) {
    for (const ucl::Dim& d : part.shape->dims) {
      const auto dim = size(d);
      if (!dim) return std::nullopt;
      out.push_back(*dim);
    }
  }
  if (has_unwritten(part)) {
    const bool behind = part.shape && part.shape->ellipsis == ucl::Ellipsis::kLast;
    out.insert(behind ? out.end() : out.begin(), unwritten_.begin(), unwritten_.end());
  }
  return out;
}

}  // namespace uckpt::layout
