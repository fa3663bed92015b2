#include "lib/convert/select.h"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "lib/base/text.h"

namespace uckpt {

namespace {

void check_states(const Catalog& catalog, const Selection& selection) {
  std::vector<std::string> known;
  for (const Tensor& t : catalog.tensors)
    if (t.state != state::kObjects && std::find(known.begin(), known.end(), t.state) == known.end())
      known.push_back(t.state);
  for (const std::string& s : selection.states) {
    if (std::find(known.begin(), known.end(), s) != known.end()) continue;
    std::string list;
    for (const std::string& k : known) list += cat(list.empty() ? "" : ", ", k);
    throw refused("select.state", cat("the checkpoint has no state `", escape(s), "`: found ", list))
        .in_file(catalog.path);
  }
}

// The first chosen alias of a source that is not chosen becomes the source of the others.
void adopt(Catalog& catalog, const std::vector<bool>& chosen) {
  std::map<uint32_t, uint32_t> heir;
  for (uint32_t i = 0; i < catalog.tensors.size(); ++i) {
    Tensor& t = catalog.tensors[i];
    if (!chosen[i] || !t.alias || chosen[*t.alias]) continue;
    const auto [at, first] = heir.try_emplace(*t.alias, i);
    if (!first) {
      t.alias = at->second;
      continue;
    }
    const Tensor& source = catalog.tensors[*t.alias];
    t.pieces = source.pieces;
    t.copies = source.copies;
    t.refusal = source.refusal;
    t.alias.reset();
  }
}

template <class Matches>
void check_one(const Catalog& catalog, std::string_view where, const std::string& pattern,
               const Matches& matches) {
  const auto is_chosen = [&](const Tensor& t) { return t.state != state::kObjects && matches(t); };
  if (std::ranges::any_of(catalog.tensors, is_chosen)) return;
  std::vector<std::string> names;
  for (const Tensor& t : catalog.tensors)
    if (t.state != state::kObjects) names.push_back(t.name);
  Error e = refused("select.no_match", cat(where, " ", escape(pattern, 100), ": no tensor has such a name"));
  if (const auto near = nearest(pattern, names)) e.hint(cat("did you mean `", escape(*near), "`?"));
  throw e.in_file(catalog.path);
}

// The patterns of a spec.
void check_each(const Catalog& catalog, std::string_view what, const std::vector<ucl::NamePattern>& names,
                const std::vector<std::string>& places) {
  for (size_t i = 0; i < names.size(); ++i)
    check_one(catalog, cat(places[i], ": ", what), names[i].text,
              [&](const Tensor& t) { return ucl::match(names[i], t.name).has_value(); });
}

}  // namespace

void check_patterns_match(const Catalog& catalog, const Selection& selection, const DTypeRules& dtypes) {
  for (const auto& [flag, globs] :
       {std::pair("--select", &selection.select), std::pair("--drop", &selection.drop)})
    for (const std::string& glob : *globs)
      check_one(catalog, flag, glob, [&](const Tensor& t) { return Selection::matches(glob, t); });
  check_each(catalog, "drop", selection.drop_names, selection.drop_places);
  for (const DTypeRules::Rule& rule : dtypes.rules) {
    if (rule.typed.empty())
      check_each(catalog, cat("dtype ", rule.dtype ? name_of(*rule.dtype) : "keep", " for"), rule.names,
                 rule.places);
    if (rule.typed.empty() || rule.names.empty()) continue;
    check_one(catalog, "--dtype", rule.typed, [&](const Tensor& t) {
      return std::ranges::any_of(rule.names,
                                 [&](const auto& name) { return ucl::match(name, t.name).has_value(); });
    });
  }
}

std::vector<uint32_t> select_tensors(Catalog& catalog, const Selection& selection) {
  check_states(catalog, selection);
  std::vector<bool> chosen(catalog.tensors.size());
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Tensor& t = catalog.tensors[i];
    chosen[i] = t.state != state::kObjects && selection.takes(t);
  }
  adopt(catalog, chosen);

  std::vector<uint32_t> sources, aliases;
  std::unordered_set<std::string> paths;
  for (uint32_t i = 0; i < chosen.size(); ++i) {
    if (!chosen[i]) continue;
    const Tensor& t = catalog.tensors[i];
    if (!t.refusal.empty()) {
      throw refused("tensor.refused", t.refusal)
          .in_file(catalog.path)
          .in_tensor(t.path())
          .hint("--drop leaves it out");
    }
    if (!paths.insert(t.path()).second) {
      throw refused("name.twice", "two tensors have this name").in_file(catalog.path).in_tensor(t.path());
    }
    (t.alias ? aliases : sources).push_back(i);
  }
  if (sources.empty()) throw refused("select.nothing", "no tensor is left to convert").in_file(catalog.path);
  sources.insert(sources.end(), aliases.begin(), aliases.end());
  return sources;
}

}  // namespace uckpt
