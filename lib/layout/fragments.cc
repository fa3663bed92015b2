#include "lib/layout/fragments.h"

#include <algorithm>
#include <memory>

#include "lib/base/text.h"
#include "lib/ucl/text_of.h"

namespace uckpt::layout {

namespace {

constexpr size_t kMostNames = 5;

bool is_number(const Catalog& catalog, const Tensor& t) {
  const auto pieces = catalog.pieces_of(t.pieces);
  return t.state != state::kParam && t.state != state::kMaster && numel_of(t.shape) == 1 && !pieces.empty() &&
         pieces[0].file == kLiteral;
}

std::string quoted_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMostNames; ++i)
    out += cat(i ? ", `" : "`", escape(names[i], 80), "`");
  return names.size() > kMostNames ? out + ", …" : out;
}

// What a capture with a local number is, in a rule's name.
struct LocalNumber {
  const ucl::Capture* capture;
  const IndexRef* index;
};

class Sorter {
 public:
  Sorter(const Catalog& catalog, const RuleBook& book, const Facts& facts, ucl::Diagnostics& diagnostics)
      : catalog_(catalog),
        book_(book),
        facts_(facts),
        diagnostics_(diagnostics),
        used_(book.rules().size()) {}

  Sorted run() {
    find_local_prefixes();
    count_local_numbers();
    for (const RankSet& set : catalog_.ranks)
      for (const Tensor& t : set.tensors) add(set, t);
    tell_unmatched();
    tell_unused();
    group();
    return std::move(out_);
  }

 private:
  std::optional<uint32_t> rule_for(const std::string& name, std::string_view state) const {
    return book_.first(name, [&](const RuleRef& r) {
      const auto& states = r.rule->states;
      const bool of_state =
          states.empty() ||
          std::any_of(states.begin(), states.end(), [&](const ucl::Name& n) { return n.text == state; });
      return of_state && facts_.holds(r.rule->when, r.scope).value_or(true);
    });
  }

  std::vector<LocalNumber> local_numbers(uint32_t rule) const {
    std::vector<LocalNumber> out;
    for (const ucl::Capture* c : book_.rules()[rule].rule->name.captures()) {
      const IndexRef* index = c->kind == ucl::Capture::Kind::kNumber ? book_.index(c->name.text) : nullptr;
      if (index && index->index->local) out.push_back({c, index});
    }
    return out;
  }

  // Names with local numbers begin so; behind the number may stand anything.
  void find_local_prefixes() {
    for (uint32_t rule = 0; rule < book_.rules().size(); ++rule) {
      const ucl::NamePattern& pattern = book_.rules()[rule].rule->name;
      for (const LocalNumber& l : local_numbers(rule)) {
        ucl::NamePattern prefix;
        for (const ucl::Segment& s : pattern.segments) {
          if (s.kind == ucl::Segment::Kind::kRest) break;
          prefix.segments.push_back(s);
          if (s.capture && s.capture->name.text == l.capture->name.text) {
            prefix.rest = static_cast<int>(prefix.segments.size());
            prefix.segments.emplace_back().kind = ucl::Segment::Kind::kRest;
            prefix.valid = true;
            local_prefixes_.push_back(std::make_unique<ucl::NamePattern>(std::move(prefix)));
            local_index_.add(*local_prefixes_.back(), rule);
            break;
          }
        }
      }
    }
  }

  // A rule that has a wildcard where a local number stands would take two tensors for one.
  void check_wildcard(const std::string& name, uint32_t rule) {
    const RuleRef& r = book_.rules()[rule];
    if (local_prefixes_.empty() || r.rule->body.kind == ucl::Body::Kind::kDrop ||
        !local_numbers(rule).empty())
      return;
    const std::vector<uint32_t> ids = local_index_.matching(name);
    if (ids.empty() || !told_wildcards_.insert(rule).second) return;
    const RuleRef& other = book_.rules()[ids.front()];
    diagnostics_
        .error(r.scope.file->source, r.rule->name.span, "ucl.wildcard_local",
               cat("a wildcard takes the local number in `", escape(name, 100), "`"))
        .note(other.scope.file->source, other.rule->name.span, "names with that number begin so")
        .hint("write the number as this rule does, or `drop` the name");
  }

  // A rank's place on all axes of an index, outermost first; nothing where the format does not tell it.
  std::optional<std::vector<int64_t>> place_of(const IndexRef& index, const Coordinate& at) const {
    std::vector<int64_t> out;
    for (const ucl::CutAxis& a : index.index->cut.axes) {
      const auto place = facts_.place(index.scope, at, a.axis.text);
      if (!place) return std::nullopt;
      out.push_back(*place);
    }
    return out;
  }

  // How many numbers each place of each local index has, so that they can be counted through.
  void count_local_numbers() {
    for (const RankSet& set : catalog_.ranks) {
      for (const Tensor& t : set.tensors) {
        const auto rule = catalog_.scattered.contains(t.name) ? std::nullopt : rule_for(t.name, t.state);
        if (!rule) continue;
        const auto locals = local_numbers(*rule);
        if (locals.empty()) continue;
        const auto values = ucl::match(book_.rules()[*rule].rule->name, t.name);
        for (const LocalNumber& l : locals) {
          const auto place = place_of(*l.index, set.at);
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

  // The name with global numbers.
  std::string global_name(const std::string& name, uint32_t rule, const Coordinate& at) const {
    const auto locals = local_numbers(rule);
    if (locals.empty()) return name;
    const ucl::NamePattern& pattern = book_.rules()[rule].rule->name;
    const auto values = ucl::match(pattern, name);
    std::vector<std::string> segments;
    for (const std::string_view s : ucl::split_name(name)) segments.emplace_back(s);
    for (const LocalNumber& l : locals) {
      const auto place = place_of(*l.index, at);
      const auto counts = local_counts_.find(l.index->index->name.text);
      if (!place || !values || counts == local_counts_.end()) continue;
      int64_t before = 0;
      for (const auto& [other, count] : counts->second)
        if (other < *place) before += count;
      for (size_t i = 0; i < pattern.segments.size(); ++i) {
        const ucl::Segment& segment = pattern.segments[i];
        if (segment.kind != ucl::Segment::Kind::kCapture ||
            segment.capture->name.text != l.capture->name.text)
          continue;
        const bool behind_rest = pattern.rest >= 0 && i > static_cast<size_t>(pattern.rest);
        const size_t at_segment = behind_rest ? segments.size() - (pattern.segments.size() - i) : i;
        for (const ucl::CaptureValue& v : *values)
          if (v.name == l.capture->name.text)
            segments[at_segment] =
                cat(segment.pieces[0], v.number + before + segment.capture->offset, segment.pieces[1]);
      }
    }
    std::string out;
    for (const std::string& s : segments) out += cat(out.empty() ? "" : ".", s);
    return out;
  }

  void note_use(uint32_t rule, const std::string& name) {
    Use& use = used_[rule];
    use.any = true;
    for (const ucl::CaptureValue& v :
         ucl::match(book_.rules()[rule].rule->name, name).value_or(ucl::CaptureValues{})) {
      const ucl::Capture* c = book_.rules()[rule].rule->name.find(v.name);
      if (c && c->kind == ucl::Capture::Kind::kNumber) {
        use.numbers[v.name].insert(v.number);
        numbers_[v.name].insert(v.number);
      }
    }
  }

  void add(const RankSet& set, const Tensor& t) {
    if (catalog_.scattered.contains(t.name)) return add_scattered(set, t);
    const auto rule = rule_for(t.name, t.state);
    if (!rule) {
      unmatched_.insert(t.name);
      return;
    }
    check_wildcard(t.name, *rule);
    const std::string name = global_name(t.name, *rule, set.at);
    note_use(*rule, name);
    const ucl::Body::Kind body = book_.rules()[*rule].rule->body.kind;
    if (body == ucl::Body::Kind::kDrop) return;
    if (t.alias) {
      const Tensor& target = set.tensors[*t.alias];
      const auto target_rule = rule_for(target.name, target.state);
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

  void tell_unmatched() {
    if (unmatched_.empty()) return;
    const std::vector<std::string> names(unmatched_.begin(), unmatched_.end());
    const Scope scope = {book_.layouts().front().file, book_.layouts().front().layout};
    diagnostics_
        .error(scope.file->source, scope.layout->name.span, "ucl.no_rule",
               cat("no rule takes ",
                   names.size() == 1 ? std::string("the name ") : cat(names.size(), " names: "),
                   quoted_names(names)))
        .hint("a fallback is written, never assumed: `\"**\" replicate`");
  }

  void tell_unused() {
    for (size_t i = 0; i < used_.size(); ++i) {
      const RuleRef& r = book_.rules()[i];
      if (r.rule->optional || !facts_.holds(r.rule->when, r.scope).value_or(true)) continue;
      if (!used_[i].any) {
        diagnostics_
            .error(r.scope.file->source, r.rule->name.span, "ucl.unused_rule",
                   cat("the rule ", ucl::text_of(r.rule->name), " takes nothing of the checkpoint"))
            .hint("write `optional` before it if that may be");
        continue;
      }
      if (r.rule->body.kind == ucl::Body::Kind::kDrop) continue;
      for (const auto& [capture, numbers] : used_[i].numbers) tell_gaps(r, capture, numbers);
    }
  }

  void tell_gaps(const RuleRef& r, const std::string& capture, const std::set<int64_t>& numbers) {
    for (const int64_t wanted : numbers_[capture]) {
      if (numbers.contains(wanted)) continue;
      diagnostics_
          .error(r.scope.file->source, r.rule->name.span, "ucl.missing_number",
                 cat("nothing of the checkpoint fits ", ucl::text_of(r.rule->name), " at ", capture, " = ",
                     wanted, ", which other rules have"))
          .hint("write `optional` before the rule if that may be");
      return;
    }
  }

  void group() {
    std::map<std::pair<uint32_t, std::string_view>, size_t> known;
    for (size_t i = 0; i < out_.parts.size(); ++i) {
      const Parts& p = out_.parts[i];
      const auto [entry, fresh] =
          known.emplace(std::pair(p.rule, std::string_view(p.name)), out_.matches.size());
      if (fresh) out_.matches.push_back({p.rule, p.name, {}});
      out_.matches[entry->second].parts.push_back(i);
    }
  }

  struct Use {
    bool any = false;
    std::map<std::string, std::set<int64_t>> numbers;
  };

  const Catalog& catalog_;
  const RuleBook& book_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  Sorted out_;
  std::vector<Use> used_;
  std::map<std::string, std::set<int64_t>> numbers_;  // of each capture, over all rules
  std::set<std::string> unmatched_;
  std::map<std::string, size_t> known_;
  std::vector<std::unique_ptr<ucl::NamePattern>> local_prefixes_;
  ucl::PatternIndex local_index_;
  std::set<uint32_t> told_wildcards_;
  std::map<std::string, std::map<std::vector<int64_t>, int64_t>, std::less<>> local_counts_;
};

}  // namespace

Sorted sort_fragments(const Catalog& catalog, const RuleBook& book, const Facts& facts,
                      ucl::Diagnostics& diagnostics) {
  return Sorter(catalog, book, facts, diagnostics).run();
}

}  // namespace uckpt::layout
