#include "lib/layout/fragments.h"

#include <algorithm>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/layout/name_rules.h"
#include "lib/layout/placement.h"

namespace uckpt::layout {

bool is_number(const Catalog& catalog, const Tensor& t) {
  const auto pieces = catalog.pieces_of(t.pieces);
  return t.state != state::kParam && t.state != state::kMaster && numel_of(t.shape) == 1 && !pieces.empty() &&
         pieces[0].file == kLiteral;
}

namespace {

// Does the input itself say how it lies?
bool is_scattered(const Catalog& catalog, const Tensor& t) {
  return !catalog.scattered.empty() && catalog.scattered.contains(t.name);
}

class Sorter {
 public:
  Sorter(const Catalog& catalog, const RuleBook& book, const Facts& facts, ucl::Diagnostics& diagnostics,
         bool rules_go_first)
      : catalog_(catalog),
        book_(book),
        facts_(facts),
        diagnostics_(diagnostics),
        names_(book, facts, diagnostics),
        rules_go_first_(rules_go_first) {}

  Sorted run() {
    find_rules();
    count_local_numbers();
    if (!facts_.is_joined())
      for (const auto& [capture, index] : book_.indices()) check_counts(capture, index);
    size_t at = 0;
    for (const RankSet& set : catalog_.ranks) {
      global_names_.clear();
      for (const Tensor& t : set.tensors) add(set, t, rules_[at++]);
    }
    names_.tell();
    group();
    return std::move(out_);
  }

 private:
  // Nothing where no rule takes the name, or the input itself says how the tensor lies.
  using Rule = std::optional<uint32_t>;

  void find_rules() {
    for (const RankSet& set : catalog_.ranks)
      for (const Tensor& t : set.tensors)
        rules_.push_back(is_scattered(catalog_, t) && !rules_go_first_ ? std::nullopt
                                                                       : names_.rule_for(t.name, t.state));
  }

  // How many numbers each place of each local index has, so that they can be counted through.
  void count_local_numbers() {
    size_t at = 0;
    for (const RankSet& set : catalog_.ranks) {
      for (const Tensor& t : set.tensors) {
        const Rule rule = rules_[at++];
        if (!rule) continue;
        const auto& locals = names_.local_numbers(*rule);
        if (locals.empty()) continue;
        const auto values = ucl::match(book_.rules()[*rule].rule->name, t.name);
        for (const LocalNumber& l : locals) {
          const auto place = place_of(facts_, *l.index, set.at);
          if (!place || !values) continue;
          for (const ucl::CaptureValue& v : *values) {
            if (v.name == l.capture->name.text) {
              int64_t& count = local_counts_[l.index->index->name.text][*place];
              count = std::max(count, v.number + 1);
            }
          }
        }
      }
    }
  }

  // Are the numbers shared out as the index says?
  void check_counts(const std::string& capture, const IndexRef& index) {
    if (std::ranges::all_of(index.index->cut.axes,
                            [](const ucl::CutAxis& a) { return a.share == ucl::ShareKind::kPlain; }))
      return;
    std::map<std::vector<int64_t>, std::set<int64_t>> numbers;
    bool any = false;
    size_t at = 0;
    for (const RankSet& set : catalog_.ranks) {
      const auto place = place_of(facts_, index, set.at);
      if (!place) return;
      std::set<int64_t>& own = numbers[*place];
      for (const Tensor& t : set.tensors) {
        const Rule rule = rules_[at++];
        if (!rule) continue;
        const ucl::NamePattern& pattern = book_.rules()[*rule].rule->name;
        const ucl::Capture* c = pattern.find(capture);
        if (!c || c->kind != ucl::Capture::Kind::kNumber) continue;
        for (const ucl::CaptureValue& v : ucl::match(pattern, t.name).value_or(ucl::CaptureValues{}))
          if (v.name == capture) own.insert(v.number);
      }
      any |= !own.empty();
    }
    CountAtPlace counts;
    for (const auto& [place, own] : numbers) {
      const int64_t last = own.empty() ? -1 : *own.rbegin();
      counts[place] = index.index->local ? last + 1 : static_cast<int64_t>(own.size());
    }
    if (any) check_shares(index, counts, facts_, diagnostics_);
  }

  // The name with global numbers; a parameter's states have it in common.
  const std::string& global_name(const std::string& name, uint32_t rule, const Coordinate& at) {
    if (names_.local_numbers(rule).empty()) return name;
    const auto [known, fresh] = global_names_.try_emplace({name, rule});
    if (fresh) known->second = make_global_name(name, rule, at);
    return known->second;
  }
  std::string make_global_name(const std::string& name, uint32_t rule, const Coordinate& at) const {
    const auto& locals = names_.local_numbers(rule);
    const ucl::NamePattern& pattern = book_.rules()[rule].rule->name;
    const auto values = ucl::match(pattern, name);
    std::map<std::string, int64_t, std::less<>> numbers;
    for (const LocalNumber& l : locals) {
      const auto place = place_of(facts_, *l.index, at);
      const auto counts = local_counts_.find(l.index->index->name.text);
      if (!place || !values || counts == local_counts_.end()) continue;
      int64_t before = 0;
      for (const auto& [other, count] : counts->second)
        if (other < *place) before += count;
      for (const ucl::CaptureValue& v : *values)
        if (v.name == l.capture->name.text) numbers[v.name] = v.number + before;
    }
    return renumbered(pattern, name, numbers);
  }

  void add(const RankSet& set, const Tensor& t, Rule rule) {
    if (!rule && is_scattered(catalog_, t)) return add_scattered(set, t);
    if (!rule) return names_.note_unmatched(t.name);
    names_.check_wildcard(t.name, *rule);
    const std::string& name = global_name(t.name, *rule, set.at);
    names_.note_use(*rule, name);
    const ucl::Body::Kind body = book_.rules()[*rule].rule->body.kind;
    if (body == ucl::Body::Kind::kDrop) {
      if (!t.alias && numel_of(t.shape) > 0) out_.dropped.insert(name);
      return;
    }
    if (t.alias) {
      const Tensor& target = set.tensors[*t.alias];
      const auto target_rule = names_.rule_for(target.name, target.state);
      const AliasName alias{t.state, name, target.state,
                            target_rule ? global_name(target.name, *target_rule, set.at) : target.name};
      if (known_.emplace(cat(t.state, "/", name), ~size_t{0}).second) out_.aliases.push_back(alias);
      return;
    }
    auto& list = is_number(catalog_, t) ? out_.numbers : out_.parts;
    auto [entry, fresh] = known_.emplace(cat(t.state, "/", name), list.size());
    if (fresh) list.push_back({t.state, name, *rule, {}});
    if (entry->second < list.size()) list[entry->second].fragments.push_back({&set, &t});
  }

  void add_scattered(const RankSet& set, const Tensor& t) {
    auto& list = is_number(catalog_, t) ? out_.numbers : out_.scattered;
    const auto [entry, fresh] = known_.emplace(cat(t.state, "/", t.name), list.size());
    if (fresh) list.push_back({t.state, t.name, 0, {}});
    list[entry->second].fragments.push_back({&set, &t});
  }

  void group() {
    std::unordered_multimap<std::string_view, size_t> known;  // a name may have several rules, for its states
    known.reserve(out_.parts.size());
    for (size_t i = 0; i < out_.parts.size(); ++i) {
      const Parts& p = out_.parts[i];
      auto [entry, end] = known.equal_range(p.name);
      while (entry != end && out_.matches[entry->second].rule != p.rule) ++entry;
      if (entry == end) {
        entry = known.emplace(p.name, out_.matches.size());
        out_.matches.push_back({p.rule, p.name, {}});
      }
      out_.matches[entry->second].parts.push_back(i);
    }
  }

  const Catalog& catalog_;
  const RuleBook& book_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  NameRules names_;
  const bool rules_go_first_;  // before what the input says of a name itself
  Sorted out_;
  std::vector<Rule> rules_;  // of each tensor of each rank set, in turn
  std::unordered_map<std::string, size_t> known_;
  std::map<std::pair<std::string_view, uint32_t>, std::string>
      global_names_;  // of one rank set, by name and rule
  std::map<std::string, std::map<std::vector<int64_t>, int64_t>, std::less<>> local_counts_;
};

}  // namespace

bool takes_names_of(const RankSet& set, const Catalog& catalog, const RuleBook& book, const Facts& facts) {
  ucl::Diagnostics none;
  const NameRules names(book, facts, none);
  return std::ranges::all_of(set.tensors, [&](const Tensor& t) {
    return is_scattered(catalog, t) || names.rule_for(t.name, t.state);
  });
}

std::set<std::string> strangers_of(const RankSet& set, const Catalog& catalog, const RuleBook& book,
                                   const Facts& facts) {
  ucl::Diagnostics none;
  const NameRules names(book, facts, none);
  std::set<std::string> out;
  for (const Tensor& t : set.tensors)
    if (!is_scattered(catalog, t) && !names.rule_for(t.name, t.state)) out.insert(t.name);
  return out;
}

void leave_to_rules(Catalog& catalog, const RuleBook& book, const Facts& facts) {
  if (catalog.scattered.empty()) return;
  ucl::Diagnostics none;
  const NameRules names(book, facts, none);
  for (const RankSet& set : catalog.ranks)
    for (const Tensor& t : set.tensors)
      if (is_scattered(catalog, t) && names.rule_for(t.name, t.state)) catalog.scattered.erase(t.name);
}

Sorted sort_fragments(const Catalog& catalog, const RuleBook& book, const Facts& facts,
                      ucl::Diagnostics& diagnostics, bool rules_go_first) {
  return Sorter(catalog, book, facts, diagnostics, rules_go_first).run();
}

}  // namespace uckpt::layout
