// Maps: what their sides may hold, and which parts no name reaches.
#include <algorithm>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/check_hidden.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

class MapChecker {
 public:
  MapChecker(const Context& context, const Map& map) : c_(context), map_(map) {
    scope_.where = where_places(map.items);
    find_names();
  }

  void check() {
    check_where(c_, reached_from(map_), scope_);
    check_uses();
    HidingRules left, right;
    each<MapRule>(map_.items, [&](const MapRule& rule) {
      for (const Side* side : {&rule.left, &rule.right})
        for (const Part& p : side->parts) check_part(p);
      check_when(c_, scope_, rule.when);
      check_hidden(left, rule, rule.left);
      check_hidden(right, rule, rule.right);
      if (rule.left.drop && rule.right.drop)
        c_.error(rule.span, "ucl.map_drop", "a rule that drops both sides says nothing");
      else if (!rule.left.drop && !rule.right.drop)
        check_bijection(c_, rule, terms_spent_);
    });
  }

 private:
  // All names that a new axis may not have.
  void find_names() {
    for (const std::string& given : c_.spec.given_names()) names_.insert(given);
    for (const auto& [name, place] : where_places(c_.file.program.statements)) names_.insert(name);
    for (const auto& [name, place] : scope_.where) names_.insert(name);
    each<MapRule>(map_.items, [&](const MapRule& rule) {
      for (const Side* side : {&rule.left, &rule.right}) {
        for (const Part& p : side->parts) {
          for (const Capture* capture : p.name.captures()) names_.insert(capture->name.text);
          if (!p.shape) continue;
          each_factor(*p.shape, [&](const Factor& f) { names_.insert(f.axis.text); });
        }
      }
    });
  }

  // For a number that is no axis: the same wherever it stands.
  const std::string& name_for(int64_t number) {
    std::string& name = name_of_[number];
    for (const char* wanted : {"n", "m", "k", "p", "s", "t"})
      if (name.empty() && names_.insert(wanted).second) name = wanted;
    for (int i = 1; name.empty(); ++i)
      if (names_.insert(cat("n", i)).second) name = cat("n", i);
    return name;
  }

  // ---- use ----

  void check_uses() {
    each<MapUse>(map_.items, [&](const MapUse& use) {
      const MapRef used = c_.spec.map(use.left.text, use.right.text);
      const Span names = join(use.left.span, use.right.span);
      if (!used && !c_.unsure())
        c_.error(names, "ucl.unknown_map",
                 cat("there is no map between `", use.left.text, "` and `", use.right.text, "`"))
            .suggest(cat(use.left.text, " <-> ", use.right.text), [&] { return c_.spec.map_names(); });
      if (used && reaches_this(*used.map))
        c_.error(names, "ucl.use_cycle",
                 used.map == &map_ ? "the map uses itself" : "the used map uses this one in turn");
    });
  }

  bool reaches_this(const Map& from) const {
    const auto reached = reached_from(from);
    return std::find(reached.begin(), reached.end(), &map_) != reached.end();
  }

  // The map and all it uses, each once, itself first.
  std::vector<const Map*> reached_from(const Map& from) const {
    std::vector<const Map*> reached = {&from};
    for (size_t i = 0; i < reached.size(); ++i)
      each<MapUse>(reached[i]->items, [&](const MapUse& use) {
        const Map* next = c_.spec.map(use.left.text, use.right.text).map;
        if (next && std::find(reached.begin(), reached.end(), next) == reached.end()) reached.push_back(next);
      });
    return reached;
  }

  // ---- what a part may hold ----

  void check_part(const Part& part) {
    if (part.value) check_expr(c_, scope_, part.value->expr);
    if (!part.shape) return;
    each_factor(*part.shape, [&](const Factor& f) {
      if (f.cut) no_mesh_here(f.cut->span, "`@`");
      if (f.pad) no_mesh_here({f.atom.end, f.cut ? f.cut->span.begin : f.span.end}, "`pad`");
      if (f.kind == Factor::Kind::kConcat) check_labels(c_, f);
      if (f.kind == Factor::Kind::kNumber && f.number != 1)
        c_.error(f.atom, "ucl.map_number",
                 cat("a map cannot move the number ", f.number, ", which is no axis"))
            .hint(cat("give it a name: `where ", name_for(f.number), " = ", f.number, "`"));
    });
    check_axes(c_, part.name, *part.shape);
  }

  void no_mesh_here(Span span, std::string_view mark) {
    while (c_.file.source.text()[span.begin] == ' ') ++span.begin;
    while (c_.file.source.text()[span.end - 1] == ' ') --span.end;
    c_.error(span, "ucl.map_mark", cat(mark, " stands in a map, which speaks of whole tensors"))
        .hint("how tensors lie over ranks is said in a layout");
  }

  void check_hidden(HidingRules& rules, const MapRule& rule, const Side& side) {
    for (const Part& part : side.parts) {
      const auto* hiding = rules.add(HidingRules::entry(part.name, &rule, rule.when, {}));
      if (!hiding) continue;
      const bool same_rule = hiding->rule == &rule;
      c_.error(part.name.span, "ucl.hidden",
               same_rule ? "two parts of one rule take the same names"
                         : "no name reaches this part: an earlier rule takes them all")
          .note(c_.file.source, hiding->name->span, same_rule ? "the other part" : "the earlier rule");
    }
  }

  const Context& c_;
  const Map& map_;
  Scope scope_;
  size_t terms_spent_ = 0;
  std::set<std::string> names_;             // that the map knows
  std::map<int64_t, std::string> name_of_;  // of numbers, in hints
};

}  // namespace

void check_map(const Context& context, const Map& map) { MapChecker(context, map).check(); }

}  // namespace uckpt::ucl
