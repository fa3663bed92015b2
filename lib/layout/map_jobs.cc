#include "lib/layout/map_jobs.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/messages.h"

namespace uckpt::layout {

namespace {}  // namespace

MapJobs::MapJobs(const Catalog& catalog, const MapBook& book, Facts& facts, ucl::Diagnostics& diagnostics)
    : catalog_(catalog), tensors_(catalog.tensors), book_(book), facts_(facts), diagnostics_(diagnostics) {
  for (const MapRuleRef& r : book.rules()) free_.emplace_back(r);
  takes_loose_ =
      std::none_of(tensors_.begin(), tensors_.end(), [](const Tensor& t) { return is_weight(t.state); });
  match();
  make_jobs();
  if (!diagnostics_.has_errors()) make_solvers();
  if (!diagnostics_.has_errors()) solve();
}

const std::string& MapJobs::first_name(const MapJob& j) const {
  return tensors_[j.tensors.begin()->second].name;
}

const Regrouping* MapJobs::regrouping_of(const MapJob& j) const {
  return j.solver && solvers_[*j.solver].regrouping ? &*solvers_[*j.solver].regrouping : nullptr;
}

bool MapJobs::holds(const MapRuleRef& rule) const {
  return early_->holds(rule.rule->when, rule.scope).value_or(true);
}

ucl::Diagnostic& MapJobs::error(const MapJob& j, ucl::Span span, std::string code,
                                std::string message) const {
  return diagnostics_.error(rule_of(j).scope.file->source, span, std::move(code), std::move(message));
}

bool MapJobs::takes_part(const Tensor& t) const {
  if (t.state == state::kObjects) return false;
  return t.state != state::kOther || takes_loose_;
}

bool MapJobs::is_left_alone(const Tensor& t) const {
  if (!takes_part(t)) return true;
  return t.state == state::kOther &&
         !book_.first_source(t.name, [&](const MapRuleRef& r) { return holds(r); }).has_value();
}

void MapJobs::match() {
  std::vector<MapName> names;
  std::map<std::string_view, size_t> known;
  for (const Tensor& t : tensors_) {
    if (!takes_part(t)) continue;
    // Another name that no rule takes is left out: its data goes under the first one.
    const bool needed = !t.alias && t.state != state::kOther;
    const auto [entry, fresh] = known.emplace(t.name, names.size());
    if (fresh) names.push_back({t.name, needed});
    names[entry->second].needed |= needed;
    // The parameter as such, to tell one value beside it from a state of its shape.
    const int64_t numel = numel_of(t.shape);
    Weight& w = weights_[t.name];
    const bool better = w.numel < 0 || is_weight(t.state) > w.is_weight || (!w.is_weight && numel > w.numel);
    if (better) w = {numel, is_weight(t.state)};
  }
  early_.emplace(facts_);
  early_->take_defaults();
  matches_ = match_names(names, book_, free_, *early_, diagnostics_);
}

bool MapJobs::is_number(const Tensor& t) const {
  return !is_weight(t.state) && numel_of(t.shape) == 1 && weights_.at(t.name).numel != 1;
}

void MapJobs::make_jobs() {
  std::map<std::pair<size_t, std::string>, size_t> known;
  job_of_.resize(tensors_.size());
  for (uint32_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& t = tensors_[i];
    const auto spot = takes_part(t) ? matches_.spots.find(t.name) : matches_.spots.end();
    if (spot == matches_.spots.end()) continue;
    const auto [entry, fresh] = known.emplace(std::pair(spot->second.match, t.state), jobs_.size());
    if (fresh) jobs_.push_back({spot->second.match, t.state, true, {}, {}, {}});
    MapJob& job = jobs_[entry->second];
    job.number &= is_number(t);
    if (!job.tensors.emplace(std::pair(spot->second.part, spot->second.free), i).second)
      throw refused("name.twice", "two tensors have this name").in_file(catalog_.path).in_tensor(t.path());
    job_of_[i] = entry->second;
  }
  for (MapJob& j : jobs_)
    if (diagnostics_.errors() < kMostMapMessages) check_states(j);
}

// Every name of the match has this state, and each part's tensors have one shape.
void MapJobs::check_states(MapJob& j) {
  const MapMatch& m = match_of(j);
  j.shapes.resize(m.names.size());
  for (size_t p = 0; p < m.names.size(); ++p) {
    const ucl::Span span = rule_of(j).source().parts[p].name.span;
    const Tensor* first = nullptr;
    for (const auto& [free, name] : m.names[p]) {
      const auto found = j.tensors.find({p, free});
      if (found == j.tensors.end()) {
        error(j, span, "ucl.missing_part",
              cat(ticked(name), " has no ", j.state, ", which ", ticked(first_name(j)), " has"));
        return;
      }
      const Tensor& t = tensors_[found->second];
      if (!first) first = &t;
      if (t.shape == first->shape) continue;
      error(j, span, "ucl.size_conflict",
            cat("the ", j.state, " of ", ticked(t.name), " has the shape ", shape_text(t.shape), ", that of ",
                ticked(first->name), " ", shape_text(first->shape)));
      return;
    }
    if (first) j.shapes[p] = first->shape;
  }
}

// Captures whose values are counted on the source side, for shapes of the target.
std::map<std::string, int64_t, std::less<>> MapJobs::counts_of(const MapJob& j) const {
  std::map<std::string, int64_t, std::less<>> out;
  for (const auto& [capture, values] : match_of(j).values)
    if (free_of(j).is_axis(capture)) out[capture] = static_cast<int64_t>(values.size());
  return out;
}

// One for all matches of a rule whose tensors have the same shapes: they have the same sizes.
void MapJobs::make_solvers() {
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    if (jobs_[i].number) continue;
    shaped_.emplace(jobs_[i].match, i);
    if (diagnostics_.errors() < kMostMapMessages && fits_first(jobs_[i])) add_solver(jobs_[i], known);
  }
  for (MapJob& j : jobs_) {
    const auto shaped = shaped_.find(j.match);
    if (j.number && shaped != shaped_.end()) j.solver = jobs_[shaped->second].solver;
  }
}

void MapJobs::add_solver(MapJob& j, std::map<std::string, size_t>& known) {
  const uint32_t rule = match_of(j).rule;
  const auto counts = counts_of(j);
  std::string key = cat(rule);
  for (const Shape& s : j.shapes) key += shape_text(s);
  for (const auto& [name, count] : counts) key += cat(" ", name, "=", count);
  const auto [entry, fresh] = known.emplace(std::move(key), solvers_.size());
  j.solver = entry->second;
  if (!fresh) return;
  const MapRuleRef& r = rule_of(j);
  std::vector<MapSizes::Source> sources;
  for (size_t p = 0; p < j.shapes.size(); ++p)
    sources.push_back({&r.source().parts[p], match_of(j).names[p].begin()->second, j.shapes[p]});
  solvers_.push_back(
      {rule, std::make_unique<MapSizes>(facts_, r.scope, std::move(sources), counts), std::nullopt});
}

void MapJobs::advance_all() {
  for (size_t before = facts_.known() + 1; before != facts_.known();) {
    before = facts_.known();
    for (auto& s : solvers_) s.sizes->advance();
    facts_.propagate();
  }
}

void MapJobs::solve() {
  advance_all();
  const bool all =
      std::all_of(solvers_.begin(), solvers_.end(), [](const Solver& s) { return s.sizes->solved(); });
  if (!all) {
    facts_.take_defaults();
    advance_all();
  }
  facts_.check();
  for (Solver& s : solvers_) {
    if (diagnostics_.errors() >= kMostMapMessages) return;
    if (!s.sizes->check(diagnostics_)) continue;
    size_t part = 0;
    const MapRuleRef& r = book_.rules()[s.rule];
    s.regrouping = regroup(r, free_[s.rule], *s.sizes, part);
    if (s.regrouping) continue;
    diagnostics_.error(r.scope.file->source, r.target().parts[part].name.span, "ucl.too_large",
                       "a tensor of this name would have more elements than 64 bits count");
  }
}

// A map says how a parameter of one shape is regrouped; a state of another is no such thing.
bool MapJobs::fits_first(const MapJob& j) {
  const MapRuleRef& r = rule_of(j);
  const MapJob& first = jobs_[shaped_.at(j.match)];
  const bool only_renames = r.source().parts.size() == 1 && r.target().parts.size() == 1 &&
                            !r.source().parts[0].shape && !r.target().parts[0].shape;
  if (first.shapes == j.shapes || only_renames) return true;
  error(j, r.source().span, "ucl.state_shape",
        cat("the ", j.state, " of ", ticked(first_name(j)), " has the shape ", shape_text(j.shapes[0]),
            ", its ", first.state, " ", shape_text(first.shapes[0])));
  return false;
}

}  // namespace uckpt::layout
