#include "lib/convert/cut.h"

#include "lib/base/text.h"
#include "lib/convert/whole.h"
#include "lib/layout/distribute.h"

namespace uckpt {

namespace {

int64_t size_of(const ConvertOptions& options, std::string_view axis, int64_t otherwise) {
  const auto found = options.layout.find(axis);
  return found == options.layout.end() ? otherwise : found->second;
}

}  // namespace

std::shared_ptr<const Shards> cut_for_target(const Catalog& catalog, std::span<const uint32_t> tensors,
                                             const ConvertOptions& options) {
  const int64_t tp = size_of(options, "tp", catalog.mesh.tp);
  if (tp < 1) throw trouble("usage.layout", "--layout tp: expected at least 1 rank");
  const RuleOptions& rules = options.rules;
  const bool has_rules =
      !catalog.rules.empty() && (tp == 1 || catalog.mesh.tp > 1);  // those of one rank cut nothing
  if (rules.spec.empty() && !has_rules) {
    if (tp == 1) return nullptr;
    throw refused("layout.no_rules",
                  cat("nothing says how its tensors are cut over ", tp, " ranks: expected rules"))
        .in_file(catalog.path)
        .hint("--spec gives them; --layout tp=1 writes them whole");
  }
  ucl::Diagnostics diagnostics;
  const auto read = spec_of(catalog, rules, diagnostics);
  const ucl::Spec& spec = *read;
  // One rank has all of it: the input's own rules tell only its padding, and where they do not fit, nothing
  // is lost.
  const bool is_needed = tp > 1 || !rules.spec.empty();
  if (diagnostics.has_errors() && !is_needed) return nullptr;
  if (diagnostics.has_errors()) throw first_problem(diagnostics, catalog.path, rules);
  const std::string naming = rules.as.empty() ? choose_naming(spec, rules) : rules.as;
  const ucl::LayoutRef layout = spec.layout(naming);
  if (!layout) {
    if (tp == 1) return nullptr;
    throw trouble("usage.naming", cat("`", naming, "` has no layout that cuts tensors over ", tp, " ranks"));
  }
  std::vector<uint32_t> cut;
  for (const uint32_t t : tensors)
    if (catalog.tensors[t].state != state::kOther) cut.push_back(t);
  layout::Settings settings = settings_of(catalog, rules);
  settings.mesh = {{"tp", tp}};
  const std::vector<Coordinate> ranks = layout::grid_of(settings.mesh);
  layout::Distributed made = layout::distribute(catalog, cut, spec, layout, settings, ranks, diagnostics);
  if (diagnostics.has_errors() && !is_needed) return nullptr;
  if (diagnostics.has_errors()) throw first_problem(diagnostics, catalog.path, rules);
  return std::make_shared<const Shards>(std::move(made.shards));
}

}  // namespace uckpt
