#include "lib/convert/whole.h"

#include <optional>

#include "lib/base/text.h"
#include "lib/layout/assemble.h"
#include "lib/ucl/check.h"
#include "lib/ucl/importer.h"
#include "lib/ucl/walk.h"

namespace uckpt {

namespace {

ucl::Spec own_spec(const Catalog& catalog, ucl::Diagnostics& diagnostics) {
  ucl::FileImporter importer(std::nullopt);
  ucl::Spec spec =
      ucl::read_spec(ucl::Source("the checkpoint's own rules", catalog.rules), importer, diagnostics);
  ucl::check(spec, diagnostics);
  return spec;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += cat(out.empty() ? "" : ", ", n);
  return out;
}

// The naming that `convert { from … as NAMING }` gives to the source.
std::string named_by_convert(const ucl::Spec& spec) {
  std::string out;
  ucl::each<ucl::Convert>(spec.root().program.statements, [&](const ucl::Convert& c) {
    ucl::each<ucl::Endpoint>(c.items, [&](const ucl::Endpoint& e) {
      if (e.is_source && e.naming) out = e.naming->text;
    });
  });
  return out;
}

ucl::LayoutRef choose_layout(const ucl::Spec& spec, const RuleOptions& rules) {
  const std::vector<std::string> all = spec.layout_names();
  std::string name = rules.naming.empty() ? named_by_convert(spec) : rules.naming;
  if (name.empty() && all.size() == 1) name = all.front();
  if (const ucl::LayoutRef found = spec.layout(name)) return found;
  if (all.empty()) throw trouble("usage.naming", cat(rules.spec, " has no layout"));
  throw trouble("usage.naming",
                name.empty() ? cat(rules.spec, " has ", all.size(), " layouts: expected to be told which")
                             : cat(rules.spec, " has no layout ", escape(name, 80)))
      .hint(cat("--naming NAME takes one of: ", joined(all)));
}

layout::Settings settings_of(const Catalog& catalog, const RuleOptions& rules) {
  layout::Settings out;
  out.set = rules.set;
  out.arguments = catalog.arguments;
  out.mesh = {
      {"tp", catalog.mesh.tp}, {"pp", catalog.mesh.pp}, {"dp", catalog.mesh.dp}, {"ep", catalog.mesh.ep}};
  return out;
}

// Names of a spec that speaks of tensors which are whole already: one rank that has them all.
void as_one_rank(Catalog& catalog) {
  RankSet all;
  std::vector<Tensor> rest;
  std::vector<std::optional<uint32_t>> moved(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    Tensor& t = catalog.tensors[i];
    const bool loose = t.state == state::kOther || t.state == state::kObjects;
    if (!loose) moved[i] = static_cast<uint32_t>(all.tensors.size());
    (loose ? rest : all.tensors).push_back(std::move(t));
  }
  for (Tensor& t : all.tensors)
    if (t.alias) t.alias = moved[*t.alias];
  catalog.tensors = std::move(rest);
  catalog.ranks.push_back(std::move(all));
}

Error first_problem(const ucl::Diagnostics& diagnostics, const std::string& path, const RuleOptions& rules) {
  const ucl::Diagnostic first = diagnostics.sorted().front();
  const ucl::Position at = first.source.position(first.span.begin);
  std::string text = cat(first.source.name(), ":", at.line, ":", at.column, ": ", first.message);
  if (diagnostics.errors() > 1) text += cat(" (and ", diagnostics.errors() - 1, " more)");
  Error e = refused(first.code, std::move(text)).in_file(path);
  return rules.spec.empty() ? e.hint(cat("`uckpt infer ", path,
                                         "` prints the rules: correct them, and give them with --spec"))
                            : e.hint(cat("`uckpt check ", rules.spec, " ", path, "` shows all of it"));
}

// What can be said where nothing was joined: the first rank's fragments.
void list_fragments(Catalog& catalog, const Error& why) {
  if (catalog.ranks.empty()) return;
  const auto base = static_cast<uint32_t>(catalog.tensors.size());
  for (Tensor t : catalog.ranks.front().tensors) {
    if (t.alias) *t.alias += base;
    if (t.refusal.empty())
      t.refusal = "it is one rank's fragment, and the rules to join it are missing or do not fit";
    if (!t.alias) t.layout = cat("1 of ", catalog.ranks.size(), " fragments");
    t.pieces = {};
    t.copies.clear();
    catalog.tensors.push_back(std::move(t));
  }
  catalog.ranks.clear();
  if (!catalog.refusal) catalog.refusal = why;
}

}  // namespace

bool join_fragments(Catalog& catalog, const RuleOptions& rules, ucl::Diagnostics& diagnostics,
                    Trusted& trusted) {
  if (rules.spec.empty() && catalog.ranks.empty()) return true;
  if (rules.spec.empty() && catalog.rules.empty()) {
    throw refused("layout.no_rules", cat("its tensors lie over ", catalog.ranks.size(),
                                         " ranks, and nothing in it says how: expected rules"))
        .in_file(catalog.path)
        .hint("--spec FILE gives them; `uckpt infer` drafts them");
  }
  const ucl::Spec spec =
      rules.spec.empty() ? own_spec(catalog, diagnostics) : ucl::open_spec(rules.spec, diagnostics);
  if (diagnostics.has_errors()) return false;
  const ucl::LayoutRef layout = choose_layout(spec, rules);
  if (catalog.ranks.empty()) as_one_rank(catalog);
  // A failed attempt must leave the fragments to be listed.
  const std::vector<RankSet> before = catalog.ranks;
  const size_t tensors = catalog.tensors.size();
  trusted = layout::assemble(catalog, spec, layout, settings_of(catalog, rules), diagnostics).trusted;
  if (!diagnostics.has_errors()) return true;
  catalog.tensors.resize(tensors);
  catalog.ranks = before;
  return false;
}

Catalog open_whole(const std::string& path, const OpenOptions& options, const RuleOptions& rules,
                   bool listed) {
  Catalog catalog = open_catalog(path, options);
  if (catalog.refusal && !catalog.ranks.empty()) {  // files are missing, say: not worth joining
    if (!listed) throw *catalog.refusal;
    list_fragments(catalog, *catalog.refusal);
    return catalog;
  }
  try {
    ucl::Diagnostics diagnostics;
    Trusted trusted;
    if (!join_fragments(catalog, rules, diagnostics, trusted)) throw first_problem(diagnostics, path, rules);
  } catch (const Error& e) {
    if (!listed || e.kind() != ErrorKind::kRefused) throw;
    list_fragments(catalog, e);
  }
  return catalog;
}

}  // namespace uckpt
