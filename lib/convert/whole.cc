#include "lib/convert/whole.h"

#include <algorithm>
#include <optional>

#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/convert/found_spec.h"
#include "lib/formats/hugging_face/model_config.h"
#include "lib/layout/assemble.h"
#include "lib/layout/fragments.h"
#include "lib/layout/map_book.h"
#include "lib/layout/renaming.h"
#include "lib/layout/settings_map.h"
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

std::string list_of(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += cat(out.empty() ? "" : ", ", n);
  return out;
}

// Calls `see(const Endpoint&)` for the source and the target of the `convert` block.
template <class See>
void each_endpoint(const ucl::Spec& spec, const See& see) {
  ucl::each<ucl::Convert>(spec.root().program.statements,
                          [&](const ucl::Convert& c) { ucl::each<ucl::Endpoint>(c.items, see); });
}

// The naming that `convert { from … as NAMING }` gives to the source, or `to … as NAMING` to the target.
std::string named_by_convert(const ucl::Spec& spec, bool source) {
  std::string out;
  each_endpoint(spec, [&](const ucl::Endpoint& e) {
    if (e.is_source == source && e.naming) out = e.naming->text;
  });
  return out;
}

}  // namespace

// What the input's names are. With `--as`, a naming without a layout will do.
std::string choose_naming(const ucl::Spec& spec, const RuleOptions& rules) {
  const std::vector<std::string> all = spec.layout_names();
  std::string name = rules.naming.empty() ? named_by_convert(spec, true) : rules.naming;
  if (name.empty() && all.size() == 1) {
    name = all.front();
    // What is wanted is not what the input has: then it has the only other naming.
    std::vector<std::string> others = spec.namings();
    std::erase(others, rules.as);
    std::sort(others.begin(), others.end());
    others.erase(std::unique(others.begin(), others.end()), others.end());
    if (name == rules.as && others.size() == 1) name = others.front();
  }
  const bool may_lack_layout = !rules.as.empty() || !rules.target_folder.empty();
  if (spec.layout(name) || (may_lack_layout && spec.is_naming(name))) return name;
  if (all.empty() && rules.as.empty()) throw trouble("usage.naming", cat(rules.spec, " has no layout"));
  std::vector<std::string> known = rules.as.empty() ? all : spec.namings();
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  const std::string_view what = rules.as.empty() ? "layout" : "naming";
  throw trouble("usage.naming", name.empty() ? cat(rules.spec, " has ", known.size(), " ", what,
                                                   "s: expected to be told which")
                                             : cat(rules.spec, " has no ", what, " ", escape(name, 80)))
      .hint(cat("--naming NAME takes one of: ", list_of(known)));
}

layout::Settings settings_of(const Catalog& catalog, const RuleOptions& rules) {
  layout::Settings out;
  out.set = rules.set;
  out.arguments = catalog.arguments;
  for (const auto& [key, value] : catalog.settings)
    if (const auto* text = std::get_if<std::string>(&value)) out.texts.emplace(key, *text);
  return out;
}

namespace {

// What `check` has to be told too.
std::string flags_text(const RuleOptions& rules) {
  std::string out;
  if (!rules.naming.empty()) out += cat(" --naming ", rules.naming);
  if (!rules.as.empty()) out += cat(" --as ", rules.as);
  for (const auto& [name, value] : rules.set) out += cat(" --set ", name, "=", value);
  return out;
}

}  // namespace

Error first_problem(const ucl::Diagnostics& diagnostics, const std::string& path, const RuleOptions& rules) {
  const std::vector<ucl::Diagnostic> all = diagnostics.sorted();
  const ucl::Diagnostic& first = *std::ranges::find(all, ucl::Severity::kError, &ucl::Diagnostic::severity);
  const ucl::Position at = first.source.position(first.span.begin);
  std::string text = cat(first.source.name(), ":", at.line, ":", at.column, ": ", first.message);
  if (diagnostics.errors() > 1) text += cat(" (and ", diagnostics.errors() - 1, " more)");
  Error e = refused(first.code, std::move(text)).in_file(path);
  const std::string name(first.source.name());
  const bool is_shipped =
      std::ranges::any_of(ucl::shipped_specs(), [&](const auto& s) { return s.name == name; });
  if (first.code == "ucl.uneven" && is_shipped)
    return e.hint("another size with --layout, or the layers of each pipeline stage with --stages, will do");
  if (first.code == "ucl.index_gap" && is_shipped) return e.hint(first.hint_text);
  if (rules.spec.empty() && is_shipped)
    return e.hint(cat("it was found by the names: --spec gives rules that fit, `uckpt check ", name, " ",
                      path, flags_text(rules), "` shows all that does not"));
  return rules.spec.empty()
             ? e.hint(
                   cat("`uckpt infer ", path, "` prints the rules: correct them, and give them with --spec"))
             : e.hint(cat("`uckpt check ", rules.spec, " ", path, flags_text(rules), "` shows all of it"));
}

namespace {

// What can be said where nothing was joined: the first rank's fragments.
void list_fragments(Catalog& catalog, const Error& why) {
  if (catalog.ranks.empty()) {
    if (!catalog.refusal) catalog.refusal = why;
    return;
  }
  const auto base = static_cast<uint32_t>(catalog.tensors.size());
  for (Tensor t : catalog.ranks.front().tensors) {
    if (t.alias) *t.alias += base;
    if (t.refusal.empty())
      t.refusal = catalog.ranks.size() > 1
                      ? "it is one rank's fragment, and the rules to join it are missing or do not fit"
                      : "the rules that were given for it do not fit";
    if (!t.alias) t.layout = cat("1 of ", catalog.ranks.size(), " fragments");
    t.pieces = {};
    t.copies.clear();
    catalog.tensors.push_back(std::move(t));
  }
  catalog.ranks.clear();
  if (!catalog.refusal) catalog.refusal = why;
}

// Adds what was taken on trust to what is known to be.
bool rename(Catalog& catalog, const ucl::Spec& spec, const std::string& naming, const RuleOptions& rules,
            const layout::Settings& settings, ucl::Diagnostics& diagnostics, Trusted& trusted) {
  layout::keep_what_was_set(catalog, spec, settings);
  if (rules.as.empty() || rules.as == naming) return true;
  for (std::string& t : layout::rename(catalog, spec, naming, rules.as, settings, diagnostics))
    if (std::find(trusted.begin(), trusted.end(), t) == trusted.end()) trusted.push_back(std::move(t));
  if (!diagnostics.has_errors())
    layout::translate_settings(catalog, spec, naming, rules.as, settings, diagnostics);
  return !diagnostics.has_errors();
}

}  // namespace

const ReadSpec& RuleOptions::read() const {
  if (!memo_->read.spec || memo_->of != spec) {
    memo_->read = {};
    memo_->read.spec = std::make_shared<ucl::Spec>(ucl::open_spec(spec, memo_->read.diagnostics));
    memo_->of = spec;
  }
  return memo_->read;
}

std::shared_ptr<const ucl::Spec> spec_of(const Catalog& catalog, const RuleOptions& rules,
                                         ucl::Diagnostics& diagnostics) {
  diagnostics = {};
  if (rules.spec.empty()) return std::make_shared<ucl::Spec>(own_spec(catalog, diagnostics));
  const ReadSpec& read = rules.read();
  diagnostics = read.diagnostics;
  return read.spec;
}

namespace {

layout::Settings settings_with_mesh(const Catalog& catalog, const RuleOptions& rules) {
  layout::Settings out = settings_of(catalog, rules);
  const Mesh& m = catalog.mesh;
  out.mesh = {{"tp", m.tp}, {"pp", m.pp}, {"vp", m.vp}, {"dp", m.dp}, {"ep", m.ep}, {"etp", m.etp}};
  return out;
}

constexpr std::string_view kSpecFact = "spec", kToHuggingFace = "to Hugging Face";
constexpr std::string_view kNoSpec = "--spec gives rules: a UCL file, or a spec of `uckpt check --list`";

bool says_something(const RuleOptions& rules) {
  return !rules.as.empty() || !rules.naming.empty() || !rules.set.empty();
}
bool asks_for_more(const RuleOptions& rules) { return says_something(rules) || !rules.target_folder.empty(); }

// Where nothing gives rules, those of a shipped spec that fits the names become the input's own. False where
// no rules are needed.
bool find_rules(Catalog& catalog, RuleOptions& rules) {
  if (!rules.spec.empty()) return true;
  const bool is_wanted = asks_for_more(rules);
  if (!catalog.rules.empty()) return !catalog.ranks.empty() || is_wanted;
  if (catalog.spec_folder.empty() && (!is_wanted || !catalog.ranks.empty())) {
    if (catalog.ranks.empty()) return false;
    throw refused("layout.no_rules", cat("its tensors lie over ", catalog.ranks.size(),
                                         " ranks, and nothing in it says how: expected rules"))
        .in_file(catalog.path)
        .hint("--spec FILE gives them; `uckpt infer` drafts them");
  }
  const std::string& folder = catalog.spec_folder.empty() ? rules.target_folder : catalog.spec_folder;
  std::string nearest;
  const auto found = find_spec(catalog, folder, rules.as, settings_with_mesh(catalog, rules), &nearest);
  if (found) {
    catalog.rules = program_of(found->spec, found->naming);
    catalog.facts.emplace_back(kSpecFact, cat(found->spec, ", naming ", found->naming));
    if (found->leads_to_hf)
      catalog.facts.emplace_back(
          kToHuggingFace, cat("uckpt convert ", escape(catalog.path), " OUT --to safetensors --as hf"));
    return true;
  }
  // Names may be the output's own already: the output says what it needs.
  const bool is_published =
      catalog.settings.contains("model_type") || catalog.settings.contains("architectures");
  if (catalog.ranks.empty() && !says_something(rules) && !is_published) return false;
  const std::string what = folder.empty() ? "spec that ships" : cat("spec in ", folder, " that ships");
  throw refused("layout.no_rules",
                cat("no ", what, " fits its names",
                    rules.as.empty() ? std::string() : cat(" and leads to `", escape(rules.as, 60), "`"),
                    nearest.empty() ? std::string() : cat(" (", nearest, ")"), ": expected rules"))
      .in_file(catalog.path)
      .hint(std::string(kNoSpec));
}

// The input's naming: told by its names where the spec has several.
std::string naming_of(const Catalog& catalog, const ucl::Spec& spec, const RuleOptions& rules) {
  const bool is_said = !rules.naming.empty() || !named_by_convert(spec, true).empty();
  if (!is_said && (spec.layout_names().size() > 1 || !rules.target_folder.empty()))
    if (const auto found = find_naming(catalog, spec, rules.as, settings_with_mesh(catalog, rules)))
      return found->naming;
  return choose_naming(spec, rules);
}

// The shipped spec that a program is, or stands for: empty if it has rules of its own.
std::string shipped_name(const ucl::Spec& spec) {
  const ucl::Program& program = spec.root().program;
  std::string out;
  for (const ucl::Shipped& s : ucl::shipped_specs())
    if (s.name == spec.root().source.name() && s.text == spec.root().source.text())
      return std::string(s.name);
  if (std::ranges::any_of(program.statements,
                          [](const auto& s) { return std::holds_alternative<ucl::Layout>(s); }))
    return out;
  ucl::each<ucl::Import>(program.statements, [&](const ucl::Import& i) { out = i.path; });
  return out.starts_with("./") ? std::string() : out;
}

// Weights and states that are whole beside fragments of others, as one rank's.
RankSet take_whole(Catalog& catalog) {
  Catalog whole;
  whole.tensors = std::move(catalog.tensors);
  as_one_rank(whole);
  catalog.tensors = std::move(whole.tensors);
  return std::move(whole.ranks.front());
}

// Rules that were given go before what the input says of its fragments.
void take_from_input(Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout,
                     const layout::Settings& settings) {
  ucl::Diagnostics said;
  const layout::RuleBook book(spec, layout);
  layout::Facts facts(spec, book.layouts(), settings, said);
  facts.take_defaults();
  layout::leave_to_rules(catalog, book, facts);
}

// Joins the fragments, then what the input has joined itself, of which the rules tell the padding.
layout::Assembled assemble_all(Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout,
                               layout::Settings settings, ucl::Diagnostics& diagnostics) {
  RankSet whole = take_whole(catalog);
  layout::Assembled out;
  if (!catalog.ranks.empty()) out = layout::assemble(catalog, spec, layout, settings, diagnostics);
  if (whole.tensors.empty() || diagnostics.has_errors()) return out;
  catalog.ranks.push_back(std::move(whole));
  return layout::assemble(catalog, spec, layout, joined(std::move(settings)), diagnostics);
}

// What the catalog's tensors are called now, and the rules that say so, where they can be kept.
void note_naming(Catalog& catalog, const RuleOptions& rules, const ucl::Spec& spec,
                 const std::string& before) {
  catalog.naming = rules.as.empty() ? before : rules.as;
  const std::string shipped = shipped_name(spec);
  if (!shipped.empty())
    catalog.rules = program_of(shipped, catalog.naming);
  else if (catalog.naming != before)
    catalog.rules.clear();
}

// A shipped spec was found by the names, and the shapes do not fit it: it is of another model. Whole tensors
// need no rules to be read.
void take_without_rules(Catalog& catalog, const Error& why) {
  catalog.rules.clear();
  std::erase_if(catalog.facts,
                [](const auto& fact) { return fact.first == kSpecFact || fact.first == kToHuggingFace; });
  catalog.warnings.push_back(
      cat("tensors are taken as they lie, with rows of padding if there are any: a spec has "
          "their names, but other shapes (",
          why.message(), ")"));
}

// Sizes are given to names that the spec has: whoever misspelt one would be heard by nothing.
void check_set(const ucl::Spec& spec, const RuleOptions& rules) {
  std::vector<std::string> known = spec.given_names();
  const auto add_where = [&](const ucl::Where& w) {
    for (const ucl::Binding& b : w.bindings) known.push_back(b.name.text);
  };
  for (const auto& file : spec.files()) {
    ucl::each<ucl::Where>(file->program.statements, add_where);
    ucl::each<ucl::Map>(file->program.statements,
                        [&](const ucl::Map& m) { ucl::each<ucl::Where>(m.items, add_where); });
    ucl::each<ucl::Layout>(file->program.statements, [&](const ucl::Layout& l) {
      ucl::each<ucl::Where>(l.items, add_where);
      for (const ucl::MeshAxis& axis : l.mesh)
        if (axis.parts) known.insert(known.end(), {axis.parts->first.text, axis.parts->second.text});
    });
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  for (const auto& [name, value] : rules.set) {
    if (std::binary_search(known.begin(), known.end(), name)) continue;
    const auto near = nearest(name, known);
    const std::string shipped = shipped_name(spec);
    throw trouble("usage.set",
                  cat("--set ", escape(name, 80), ": no `given` or `where` of ",
                      shipped.empty() ? std::string(spec.root().source.name()) : shipped, " has this name"))
        .hint(near            ? cat("did you mean `", *near, "`?")
              : known.empty() ? std::string("it has none")
                              : cat("it has ", list_of(known)));
  }
}

}  // namespace

void check_sizes(const ucl::Spec& spec, const RuleOptions& rules, ucl::Diagnostics& diagnostics) {
  check_set(spec, rules);
  layout::Settings settings;
  settings.set = rules.set;
  layout::Facts(spec, {}, settings, diagnostics).check();
}

bool join_fragments(Catalog& catalog, const RuleOptions& asked, ucl::Diagnostics& diagnostics,
                    Trusted& trusted) {
  RuleOptions rules = asked;
  const bool is_found = rules.spec.empty() && catalog.rules.empty();
  if (!find_rules(catalog, rules)) return true;
  const bool is_needed = !is_found || !catalog.ranks.empty() || asks_for_more(rules);
  const auto read = spec_of(catalog, rules, diagnostics);
  const ucl::Spec& spec = *read;
  if (diagnostics.has_errors()) return false;
  check_set(spec, rules);
  if (rules.as.empty()) rules.as = named_by_convert(spec, false);
  const std::string naming = naming_of(catalog, spec, rules);
  const ucl::LayoutRef layout = spec.layout(naming);
  if (!layout && !catalog.ranks.empty()) {
    throw trouble("usage.naming", cat("the input lies over ", catalog.ranks.size(), " ranks, and `", naming,
                                      "` has no layout that joins it"))
        .in_file(catalog.path);
  }
  if (rules.as.empty() && !rules.target_folder.empty() && !layout) rules.as = nearest_layout(spec, naming);
  rules.as = resolve_naming(spec, naming, rules.as);
  if (!rules.as.empty() && rules.as != naming) (void)layout::map_chain(spec, naming, rules.as);
  layout::Settings settings = settings_with_mesh(catalog, rules);
  // A consolidated file has every tensor whole: there is no mesh in it, and no padding. Nor is there in
  // another input of whole tensors, unless a spec was given for it.
  const bool is_cut = !catalog.ranks.empty() || !catalog.spec_folder.empty();
  const bool is_whole = !layout || catalog.kind == "hdf5" || (!is_cut && rules.spec.empty());
  const Catalog before =
      is_whole ? Catalog() : catalog;  // a failed attempt leaves the fragments to be listed
  if (!is_whole) {
    if (!rules.spec.empty()) take_from_input(catalog, spec, layout, settings);
    layout::Assembled assembled = assemble_all(catalog, spec, layout, settings, diagnostics);
    trusted = std::move(assembled.trusted);
    settings.solved = std::move(assembled.givens);
  }
  if (!diagnostics.has_errors() && rename(catalog, spec, naming, rules, settings, diagnostics, trusted)) {
    note_naming(catalog, rules, spec, naming);
    return true;
  }
  if (is_whole) return false;
  catalog = before;
  if (!is_needed) {
    take_without_rules(catalog, first_problem(diagnostics, catalog.path, rules));
    diagnostics = {};
    trusted.clear();
    return true;
  }
  if (catalog.ranks.empty()) as_one_rank(catalog);
  return false;
}

std::string input_kind(const RuleOptions& rules) {
  std::string out;
  if (rules.spec.empty()) return out;
  const ReadSpec& read = rules.read();
  if (read.diagnostics.has_errors()) return out;
  each_endpoint(*read.spec, [&](const ucl::Endpoint& e) {
    if (e.is_source) out = e.format.text;
  });
  return out;
}

namespace {

// The input's own rules join it, and know no other naming: what is asked for beyond that, a shipped spec
// tells of the whole tensors.
bool join_in_turn(Catalog& catalog, const RuleOptions& rules, ucl::Diagnostics& diagnostics,
                  Trusted& trusted) {
  const bool has_own = rules.spec.empty() && !catalog.rules.empty() && !is_program_of(catalog.rules);
  if (!has_own || !asks_for_more(rules)) return join_fragments(catalog, rules, diagnostics, trusted);
  if (!join_fragments(catalog, RuleOptions(), diagnostics, trusted)) return false;
  catalog.rules.clear();
  return join_fragments(catalog, rules, diagnostics, trusted);
}

// What rules miss may stand in settings that nobody could read.
Error with_unread_settings(const Error& e, const Catalog& catalog) {
  const std::string why = hugging_face::why_config_is_unread(catalog);
  if (why.empty() || e.kind() != ErrorKind::kRefused) return e;
  return refused(e.code(), cat(e.message(), "; ", why)).in_file(e.file()).hint(e.hint_text());
}

}  // namespace

Catalog open_whole(const std::string& path, const OpenOptions& asked, const RuleOptions& rules, bool listed) {
  OpenOptions options = asked;
  if (options.from.empty()) options.from = input_kind(rules);
  Catalog catalog = open_catalog(path, options);
  enter_phase("join");
  if (catalog.refusal && !catalog.ranks.empty()) {  // files are missing, say: not worth joining
    if (!listed) throw *catalog.refusal;
    list_fragments(catalog, *catalog.refusal);
    return catalog;
  }
  try {
    ucl::Diagnostics diagnostics;
    Trusted trusted;
    if (!join_in_turn(catalog, rules, diagnostics, trusted)) throw first_problem(diagnostics, path, rules);
  } catch (const Error& e) {
    if (!listed || e.kind() != ErrorKind::kRefused) throw with_unread_settings(e, catalog);
    list_fragments(catalog, e);
  }
  return catalog;
}

}  // namespace uckpt
