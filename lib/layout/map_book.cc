#include "lib/layout/map_book.h"

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

constexpr size_t kDeepestMapUse = 64;

using Edge = std::pair<std::string, std::string>;
using Edges = std::set<Edge>;
using Path = std::vector<std::string>;

Edges edges_of(const ucl::Spec& spec) {
  Edges out;
  for (const auto& file : spec.files()) {
    ucl::each<ucl::Map>(file->program.statements, [&](const ucl::Map& m) {
      if (!m.left.empty()) out.insert({m.left.text, m.right.text});
    });
  }
  return out;
}

// A shortest way that does not take the edge `without`; empty if there is none.
Path way(const Edges& edges, const std::string& from, const std::string& to, const Edge* without) {
  std::map<std::string, std::vector<std::string>> next;
  for (const Edge& e : edges) {
    if (without && e == *without) continue;
    next[e.first].push_back(e.second);
    next[e.second].push_back(e.first);
  }
  std::map<std::string, std::string> before = {{from, ""}};
  Path queue = {from};
  for (size_t i = 0; i < queue.size() && !before.contains(to); ++i) {
    const std::string at = queue[i];
    for (const std::string& n : next[at])
      if (before.try_emplace(n, at).second) queue.push_back(n);
  }
  if (!before.contains(to)) return {};
  Path out = {to};
  while (out.back() != from) out.push_back(before[out.back()]);
  return {out.rbegin(), out.rend()};
}

std::string text_of(const Path& path) {
  std::string out;
  for (const std::string& p : path) out += cat(out.empty() ? "" : " <-> ", p);
  return out;
}

// Two ways differ in an edge of the first.
Path other_way(const Edges& edges, const Path& first) {
  for (size_t i = 0; i + 1 < first.size(); ++i) {
    for (const Edge& e : {Edge{first[i], first[i + 1]}, Edge{first[i + 1], first[i]}}) {
      if (!edges.contains(e)) continue;
      if (Path other = way(edges, first.front(), first.back(), &e); !other.empty()) return other;
    }
  }
  return {};
}

void check_naming(const ucl::Spec& spec, std::string_view name) {
  if (spec.is_naming(name)) return;
  const std::vector<std::string> all = spec.namings();
  const std::set<std::string> each(all.begin(), all.end());
  std::string list;
  for (const std::string& n : each) list += cat(list.empty() ? "" : ", ", n);
  const auto near = nearest(name, all);
  throw trouble("usage.as", cat(spec.root().source.name(), " has no naming `", escape(name, 80), "`"))
      .hint(near ? cat("did you mean `", *near, "`?") : cat("it has ", list.empty() ? "none" : list));
}

}  // namespace

MapBook::MapBook(const ucl::Spec& spec, ucl::MapRef map) {
  add(spec, map, 0);
  for (uint32_t i = 0; i < rules_.size(); ++i) {
    sources_.add(rules_[i].source(), i);
    targets_.add(rules_[i].target(), i);
  }
}

void MapBook::Names::add(const ucl::Side& side, uint32_t rule) {
  for (uint32_t p = 0; p < side.parts.size(); ++p) {
    patterns.add(side.parts[p].name, static_cast<uint32_t>(ids.size()));
    ids.push_back({rule, p});
  }
}

void MapBook::add(const ucl::Spec& spec, ucl::MapRef map, size_t depth) {
  const bool known =
      std::any_of(maps_.begin(), maps_.end(), [&](const ucl::MapRef& m) { return m.map == map.map; });
  if (!map || known || depth > kDeepestMapUse) return;
  maps_.push_back(map);
  const Scope scope{map.file, nullptr, map.map};
  for (const ucl::MapItem& item : map.map->items) {
    if (const auto* rule = std::get_if<ucl::MapRule>(&item)) rules_.push_back({rule, scope, map.reversed});
    if (const auto* use = std::get_if<ucl::MapUse>(&item)) {
      ucl::MapRef used = spec.map(use->left.text, use->right.text);
      used.reversed ^= map.reversed;
      add(spec, used, depth + 1);
    }
  }
}

std::optional<MapBook::PartId> MapBook::first(const Names& names, std::string_view name,
                                              const Wanted& wanted) const {
  for (const uint32_t id : names.patterns.matching(name))
    if (wanted(rules_[names.ids[id].rule])) return names.ids[id];
  return std::nullopt;
}

std::optional<MapBook::PartId> MapBook::first_source(std::string_view name, const Wanted& wanted) const {
  return first(sources_, name, wanted);
}

std::optional<MapBook::PartId> MapBook::first_target(std::string_view name, const Wanted& wanted) const {
  return first(targets_, name, wanted);
}

bool MapBook::is_overridable(uint32_t rule, uint32_t by) const {
  const ucl::Map* map = rules_[rule].scope.map;
  return rule > by && map != rules_[by].scope.map && map != maps_.front().map;
}

void MapBook::each_overridden(const Names& names, uint32_t rule, std::string_view name,
                              const SeePart& see) const {
  if (maps_.size() == 1) return;
  for (const uint32_t id : names.patterns.matching(name))
    if (is_overridable(names.ids[id].rule, rule)) see(names.ids[id]);
}

void MapBook::each_overridden_source(uint32_t rule, std::string_view name, const SeePart& see) const {
  each_overridden(sources_, rule, name, see);
}

void MapBook::each_overridden_target(uint32_t rule, std::string_view name, const SeePart& see) const {
  each_overridden(targets_, rule, name, see);
}

std::vector<ucl::MapRef> map_chain(const ucl::Spec& spec, std::string_view from, std::string_view to) {
  check_naming(spec, from);
  check_naming(spec, to);
  const Edges edges = edges_of(spec);
  const Path path = way(edges, std::string(from), std::string(to), nullptr);
  if (path.empty()) {
    std::string maps;
    for (const std::string& m : spec.map_names()) maps += cat(maps.empty() ? "" : ", ", m);
    throw trouble("usage.as", cat("no chain of maps leads from `", from, "` to `", to, "`"))
        .hint(maps.empty() ? cat(spec.root().source.name(), " has no map") : cat("the maps are ", maps));
  }
  if (const Path other = other_way(edges, path); !other.empty()) {
    throw trouble("usage.as", cat("two chains of maps lead from `", from, "` to `", to, "`"))
        .hint(cat(text_of(path), "; ", text_of(other)));
  }
  std::vector<ucl::MapRef> out;
  for (size_t i = 0; i + 1 < path.size(); ++i) out.push_back(spec.map(path[i], path[i + 1]));
  return out;
}

}  // namespace uckpt::layout
