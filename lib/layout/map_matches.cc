#include "lib/layout/map_matches.h"

#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/layout/messages.h"
#include "lib/ucl/text_of.h"

namespace uckpt::layout {

namespace {

constexpr int64_t kNoNumber = INT64_MIN;  // the capture is text

CaptureKey key_of(const ucl::CaptureValue& value, const ucl::Capture& capture) {
  if (capture.kind == ucl::Capture::Kind::kNumber) return {value.number, {}};
  return {kNoNumber, value.text};
}

class Matcher {
 public:
  Matcher(const MapBook& book, const std::vector<FreeCaptures>& free, const Facts& facts,
          ucl::Diagnostics& diagnostics)
      : book_(book), free_(free), facts_(facts), diagnostics_(diagnostics), used_(book.rules().size()) {}

  MapMatches run(const std::vector<MapName>& names) {
    for (const MapName& n : names) add(n);
    for (MapMatch& m : out_.matches) gather_values(m);
    if (book_.maps().size() > 1) note_overridden();
    tell_unmatched();
    tell_unused();
    for (const MapMatch& m : out_.matches)
      if (diagnostics_.errors() < kMostMessages) complete(m);
    return std::move(out_);
  }

 private:
  struct Use {
    bool any = false;
    std::map<std::string, std::set<int64_t>> numbers;
  };

  bool holds(const MapRuleRef& r) const { return facts_.holds(r.rule->when, r.scope).value_or(true); }

  void add(const MapName& n) {
    const auto found = book_.first_source(n.name, [&](const MapRuleRef& r) { return holds(r); });
    if (!found) {
      if (n.needed) unmatched_.push_back(n.name);
      return;
    }
    const MapRuleRef& r = book_.rules()[found->rule];
    const ucl::NamePattern& pattern = r.source().parts[found->part].name;
    const ucl::CaptureValues values = ucl::match(pattern, n.name).value_or(ucl::CaptureValues{});
    note_use(used_[found->rule], pattern, values);
    book_.each_overridden_source(found->rule, n.name, [&](MapBook::PartId id) {
      const ucl::NamePattern& own = book_.rules()[id.rule].source().parts[id.part].name;
      note_use(used_[id.rule], own, ucl::match(own, n.name).value_or(ucl::CaptureValues{}));
    });
    if (r.target().drop) return;
    Spot spot{0, found->part, {}};
    ucl::CaptureValues fixed;
    std::string key = cat(found->rule);
    for (const ucl::CaptureValue& v : values) {
      if (free_[found->rule].is_free(v.name)) continue;
      fixed.push_back(v);
      key += cat("\n", v.name, "\n", v.number, "\n", v.text);
    }
    std::sort(fixed.begin(), fixed.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    const auto [entry, fresh] = matches_.try_emplace(std::move(key), out_.matches.size());
    if (fresh) {
      out_.matches.push_back({found->rule, std::move(fixed), {}, {}});
      out_.matches.back().names.resize(r.source().parts.size());
    }
    spot.match = entry->second;
    for (const std::string& c : free_[found->rule].of_source(found->part)) {
      for (const ucl::CaptureValue& v : values)
        if (v.name == c) spot.free.push_back(key_of(v, *pattern.find(c)));
    }
    out_.matches[spot.match].names[found->part].emplace(spot.free, n.name);
    out_.spots.emplace(n.name, std::move(spot));
  }

  void note_use(Use& use, const ucl::NamePattern& pattern, const ucl::CaptureValues& values) {
    use.any = true;
    for (const ucl::CaptureValue& v : values) {
      const ucl::Capture* c = pattern.find(v.name);
      if (!c || c->kind != ucl::Capture::Kind::kNumber) continue;
      use.numbers[v.name].insert(v.number);
      numbers_[v.name].insert(v.number);
    }
  }

  // Read backwards, a rule above overrides a used one by making its names.
  void note_overridden() {
    for (const MapMatch& m : out_.matches)
      for (size_t p = 0; p < book_.rules()[m.rule].target().parts.size(); ++p) note_made(m, p);
    for (uint32_t rule = 0; rule < book_.rules().size(); ++rule) {
      const MapRuleRef& r = book_.rules()[rule];
      if (!r.source().drop || !holds(r)) continue;
      for (const ucl::Part& part : r.target().parts) note_covered(rule, part.name);
    }
    for (const auto& [rule, parts] : made_) take_over(used_[rule], parts);
  }

  void note_made(const MapMatch& m, size_t p) {
    const ucl::Part& part = book_.rules()[m.rule].target().parts[p];
    const auto& captures = free_[m.rule].of_target(p);
    // How many numbers an axis of the source has, its size will tell.
    if (!std::all_of(captures.begin(), captures.end(), [&](const auto& c) { return m.values.contains(c); }))
      return note_covered(m.rule, part.name);
    std::vector<FreeValues> all = {{}};
    for (const std::string& c : captures) {
      std::vector<FreeValues> next;
      for (const FreeValues& values : all) {
        for (const CaptureKey& key : m.values.at(c)) {
          next.push_back(values);
          next.back().push_back(key);
        }
      }
      all = std::move(next);
    }
    for (const FreeValues& values : all) {
      const auto name = name_of(part, m.fixed, captures, values);
      if (!name) continue;
      book_.each_overridden_target(m.rule, *name, [&](MapBook::PartId id) {
        const ucl::NamePattern& own = book_.rules()[id.rule].target().parts[id.part].name;
        note_use(made_part(id), own, ucl::match(own, *name).value_or(ucl::CaptureValues{}));
      });
    }
  }

  // All names of the pattern are this rule's.
  void note_covered(uint32_t rule, const ucl::NamePattern& pattern) {
    for (uint32_t other = rule + 1; other < book_.rules().size(); ++other) {
      if (!book_.is_overridable(other, rule)) continue;
      const auto& parts = book_.rules()[other].target().parts;
      for (uint32_t p = 0; p < parts.size(); ++p)
        if (ucl::covers(pattern, parts[p].name)) made_part({other, p}).any = true;
    }
  }

  Use& made_part(MapBook::PartId id) {
    auto& parts = made_[id.rule];
    parts.resize(book_.rules()[id.rule].target().parts.size());
    return parts[id.part];
  }

  // What rules above make of all parts of a rule, it need not.
  static void take_over(Use& use, const std::vector<Use>& parts) {
    if (!std::all_of(parts.begin(), parts.end(), [](const Use& u) { return u.any; })) return;
    use.any = true;
    for (const auto& entry : parts.front().numbers) {
      const std::string& capture = entry.first;
      for (const int64_t number : entry.second) {
        const bool everywhere = std::all_of(parts.begin(), parts.end(), [&](const Use& u) {
          const auto own = u.numbers.find(capture);
          return own != u.numbers.end() && own->second.contains(number);
        });
        if (everywhere) use.numbers[capture].insert(number);
      }
    }
  }

  void tell_unmatched() {
    if (unmatched_.empty()) return;
    const ucl::MapRef& map = book_.maps().front();
    const std::string& from = (map.reversed ? map.map->right : map.map->left).text;
    diagnostics_
        .error(map.file->source, ucl::join(map.map->left.span, map.map->right.span), "ucl.no_rule",
               unmatched_.size() == 1 ? cat("no rule of this map takes the name ", ticked(unmatched_.front()),
                                            " of `", from, "`")
                                      : cat("no rule of this map takes ", unmatched_.size(), " names of `",
                                            from, "`: ", quoted_names(unmatched_)))
        .hint("what is not wanted is dropped in writing: `\"NAME\" <-> drop`");
  }

  void tell_unused() {
    for (size_t i = 0; i < used_.size(); ++i) {
      const MapRuleRef& r = book_.rules()[i];
      if (r.source().drop || r.rule->optional || !holds(r) || diagnostics_.errors() >= kMostMessages)
        continue;
      if (!used_[i].any) {
        diagnostics_
            .error(r.scope.file->source, r.source().span, "ucl.unused_rule",
                   cat("the rule for ", ucl::text_of(r.source().parts.front().name),
                       " takes nothing of the checkpoint"))
            .hint("write `optional` before it if that may be");
      } else if (!r.target().drop) {
        for (const auto& [capture, numbers] : used_[i].numbers) tell_gap(r, capture, numbers);
      }
    }
  }

  void tell_gap(const MapRuleRef& r, const std::string& capture, const std::set<int64_t>& numbers) {
    for (const int64_t wanted : numbers_[capture]) {
      if (numbers.contains(wanted)) continue;
      diagnostics_
          .error(r.scope.file->source, r.source().parts.front().name.span, "ucl.missing_number",
                 cat("nothing of the checkpoint fits ", ucl::text_of(r.source().parts.front().name), " at ",
                     capture, " = ", wanted, ", which other rules have"))
          .hint("write `optional` before the rule if that may be");
      return;
    }
  }

  // What the free captures took, over all parts.
  void gather_values(MapMatch& m) const {
    std::map<std::string, std::set<CaptureKey>> values;
    for (size_t p = 0; p < m.names.size(); ++p) {
      const auto& captures = free_[m.rule].of_source(p);
      for (const auto& [key, name] : m.names[p])
        for (size_t c = 0; c < captures.size(); ++c) values[captures[c]].insert(key[c]);
    }
    for (const auto& [capture, seen] : values) m.values[capture].assign(seen.begin(), seen.end());
  }

  // All parts are there, with all values of their free captures; those that are axes run from 0.
  void complete(const MapMatch& m) {
    const MapRuleRef& r = book_.rules()[m.rule];
    for (const auto& [capture, values] : m.values)
      if (free_[m.rule].is_axis(capture) && !runs_from_zero(r, capture, values)) return;
    for (size_t p = 0; p < m.names.size(); ++p)
      if (!has_all(r, m, p)) return;
  }

  bool runs_from_zero(const MapRuleRef& r, const std::string& capture,
                      const std::vector<CaptureKey>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i].number == static_cast<int64_t>(i)) continue;
      diagnostics_.error(
          r.scope.file->source, r.source().span, "ucl.number_gap",
          cat("`", capture, "` is an axis on the other side, so its numbers run from 0: found ",
              values[i].number, ", but not ", i));
      return false;
    }
    return true;
  }

  // Walks all combinations of the captures' values; stops at the first that is missing.
  bool has_all(const MapRuleRef& r, const MapMatch& m, size_t part) {
    const auto& captures = free_[m.rule].of_source(part);
    FreeValues wanted;
    std::vector<size_t> at(captures.size(), 0);
    for (const std::string& c : captures) {
      const auto values = m.values.find(c);
      if (values == m.values.end()) return tell_missing(r, m, part, {});
      wanted.push_back(values->second.front());
    }
    while (true) {
      if (!m.names[part].contains(wanted)) return tell_missing(r, m, part, wanted);
      size_t c = captures.size();
      for (; c > 0; --c) {
        const auto& values = m.values.at(captures[c - 1]);
        at[c - 1] = at[c - 1] + 1 < values.size() ? at[c - 1] + 1 : 0;
        wanted[c - 1] = values[at[c - 1]];
        if (at[c - 1] > 0) break;
      }
      if (c == 0) return true;
    }
  }

  bool tell_missing(const MapRuleRef& r, const MapMatch& m, size_t part, const FreeValues& values) {
    const ucl::Part& p = r.source().parts[part];
    const auto name = name_of(p, m.fixed, free_[m.rule].of_source(part), values);
    std::string there;
    for (const auto& names : m.names)
      if (there.empty() && !names.empty()) there = names.begin()->second;
    diagnostics_.error(r.scope.file->source, p.name.span, "ucl.missing_part",
                       cat(name ? ticked(*name) : ucl::text_of(p.name),
                           " is missing: the rule takes it together with ", ticked(there)));
    return false;
  }

  const MapBook& book_;
  const std::vector<FreeCaptures>& free_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  MapMatches out_;
  std::map<std::string, size_t> matches_;
  std::vector<Use> used_;                      // of each rule, with what rules above it override
  std::map<uint32_t, std::vector<Use>> made_;  // of used rules' target parts: what rules above them make
  std::map<std::string, std::set<int64_t>> numbers_;  // of each capture, over all rules
  std::vector<std::string> unmatched_;
};

}  // namespace

MapMatches match_names(const std::vector<MapName>& names, const MapBook& book,
                       const std::vector<FreeCaptures>& free, const Facts& facts,
                       ucl::Diagnostics& diagnostics) {
  return Matcher(book, free, facts, diagnostics).run(names);
}

std::optional<std::string> name_of(const ucl::Part& part, const ucl::CaptureValues& fixed,
                                   const std::vector<std::string>& free, const FreeValues& values) {
  if (values.size() != free.size()) return std::nullopt;
  ucl::CaptureValues all = fixed;
  for (size_t c = 0; c < free.size(); ++c) {
    const bool is_number = values[c].number != kNoNumber;
    all.push_back({free[c], is_number ? cat(values[c].number) : values[c].text, values[c].number});
  }
  return ucl::produce(part.name, all);
}

}  // namespace uckpt::layout
