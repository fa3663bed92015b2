#include "lib/layout/name_rules.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/layout/messages.h"
#include "lib/ucl/text_of.h"

namespace uckpt::layout {

NameRules::NameRules(const RuleBook& book, const Facts& facts, ucl::Diagnostics& diagnostics)
    : book_(book), facts_(facts), diagnostics_(diagnostics), used_(book.rules().size()) {
  find_indexes();
  find_local_prefixes();
}

const std::vector<int64_t>& NameRules::Numbers::sorted() {
  std::sort(list_.begin(), list_.end());
  list_.erase(std::unique(list_.begin(), list_.end()), list_.end());
  return list_;
}

std::optional<uint32_t> NameRules::rule_for(const std::string& name, std::string_view state) const {
  return book_.first(name, [&](const RuleRef& r) {
    const auto& states = r.rule->states;
    const bool of_state = states.empty() || std::any_of(states.begin(), states.end(),
                                                        [&](const ucl::Name& n) { return n.text == state; });
    return of_state && facts_.holds(r.rule->when, r.scope).value_or(true);
  });
}

void NameRules::find_indexes() {
  for (const RuleRef& r : book_.rules()) {
    std::vector<LocalNumber>& locals = locals_.emplace_back();
    std::vector<std::string>& indexes = indexes_.emplace_back();
    for (const ucl::Capture* c : r.rule->name.captures()) {
      const IndexRef* index = c->kind == ucl::Capture::Kind::kNumber ? book_.index(c->name.text) : nullptr;
      if (!index) continue;
      indexes.push_back(c->name.text);
      if (index->index->local) locals.push_back({c, index});
    }
  }
}

// Names with local numbers begin so; behind the number may stand anything.
void NameRules::find_local_prefixes() {
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

void NameRules::check_wildcard(const std::string& name, uint32_t rule) {
  const RuleRef& r = book_.rules()[rule];
  if (local_prefixes_.empty() || r.rule->body.kind == ucl::Body::Kind::kDrop || !local_numbers(rule).empty())
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

void NameRules::note_use(uint32_t rule, const std::string& name) {
  add_name(rule, name);
  book_.each_overridden(rule, name, [&](uint32_t used) { add_name(used, name); });
}

void NameRules::add_name(uint32_t rule, const std::string& name) {
  Use& use = used_[rule];
  use.any = true;
  const ucl::NamePattern& pattern = book_.rules()[rule].rule->name;
  std::vector<int64_t> together(indexes_[rule].size());
  const ucl::CaptureValues values = ucl::match(pattern, name).value_or(ucl::CaptureValues{});
  std::vector<std::map<std::string, Numbers>*> chosen;
  for (const ucl::CaptureValue& v : values)
    if (const ucl::Capture* c = pattern.find(v.name); c && c->kind == ucl::Capture::Kind::kChoice)
      chosen.push_back(&use.chosen[{v.name, v.text}]);
  for (const ucl::CaptureValue& v : values) {
    const ucl::Capture* c = pattern.find(v.name);
    if (!c || c->kind != ucl::Capture::Kind::kNumber) continue;
    use.numbers[v.name].add(v.number);
    numbers_[v.name].add(v.number);
    for (std::map<std::string, Numbers>* numbers : chosen) (*numbers)[v.name].add(v.number);
    for (size_t i = 0; i < together.size(); ++i)
      if (indexes_[rule][i] == v.name) together[i] = v.number;
  }
  if (together.size() > 1) use.together.insert(std::move(together));
}

void NameRules::tell() {
  tell_unmatched();
  tell_unused();
  tell_indexes();
}

void NameRules::tell_unmatched() {
  if (unmatched_.empty()) return;
  const std::vector<std::string> names(unmatched_.begin(), unmatched_.end());
  const Scope scope = {book_.layouts().front().file, book_.layouts().front().layout};
  diagnostics_
      .error(
          scope.file->source, scope.layout->name.span, "ucl.no_rule",
          cat("no rule takes ", names.size() == 1 ? std::string("the name ") : cat(names.size(), " names: "),
              quoted_names(names)))
      .hint("a fallback is written, never assumed: `\"**\" replicate`");
}

void NameRules::tell_unused() {
  for (size_t i = 0; i < used_.size(); ++i) {
    const RuleRef& r = book_.rules()[i];
    if (r.rule->body.kind != ucl::Body::Kind::kDrop) tell_missing_together(static_cast<uint32_t>(i));
    if (r.rule->optional || !facts_.holds(r.rule->when, r.scope).value_or(true)) continue;
    if (!used_[i].any) {
      diagnostics_
          .error(r.scope.file->source, r.rule->name.span, "ucl.unused_rule",
                 cat("the rule ", ucl::text_of(r.rule->name), " takes nothing of the checkpoint"))
          .hint("write `optional` before it if that may be");
      continue;
    }
    if (r.rule->body.kind != ucl::Body::Kind::kDrop) tell_missing(static_cast<uint32_t>(i));
  }
}

// Which texts of a choice a model has is for it to say, but no layer lacks one that others have.
void NameRules::tell_missing(uint32_t rule) {
  const RuleRef& r = book_.rules()[rule];
  Use& use = used_[rule];
  if (tell_gaps(r, use.numbers, "")) return;
  for (auto& [choice, numbers] : use.chosen)
    tell_gaps(r, numbers, cat(" with ", choice.first, " = ", choice.second));
}

bool NameRules::tell_gaps(const RuleRef& r, std::map<std::string, Numbers>& numbers,
                          const std::string& chosen) {
  bool is_told = false;
  for (auto& [capture, own] : numbers) {
    const std::vector<int64_t>& wanted = numbers_[capture].sorted();
    const std::vector<int64_t>& there = own.sorted();
    const auto missing = std::ranges::find_if(
        wanted, [&](int64_t n) { return !std::binary_search(there.begin(), there.end(), n); });
    if (missing == wanted.end()) continue;
    is_told = true;
    diagnostics_
        .error(r.scope.file->source, r.rule->name.span, "ucl.missing_number",
               cat("nothing of the checkpoint fits ", ucl::text_of(r.rule->name), chosen, " at ", capture,
                   " = ", *missing, ", which other rules have"))
        .hint("write `optional` before the rule if that may be");
  }
  return is_told;
}

// Every layer has every expert: a rule's numbers are all combinations of those of each index.
void NameRules::tell_missing_together(uint32_t rule) {
  Use& use = used_[rule];
  if (use.together.empty()) return;
  std::vector<const std::vector<int64_t>*> sorted;
  size_t all = 1;
  for (const std::string& index : indexes_[rule]) {
    sorted.push_back(&use.numbers[index].sorted());
    all *= sorted.back()->size();
  }
  if (use.together.size() == all) return;
  std::vector<size_t> at(sorted.size());
  std::vector<int64_t> wanted;
  for (const std::vector<int64_t>* numbers : sorted) wanted.push_back(numbers->front());
  while (use.together.contains(wanted)) {
    size_t d = at.size() - 1;
    while (++at[d] == sorted[d]->size()) wanted[d] = sorted[d]->front(), at[d--] = 0;
    wanted[d] = (*sorted[d])[at[d]];
  }
  std::string where;
  for (size_t i = 0; i < wanted.size(); ++i) where += cat(i ? ", " : "", indexes_[rule][i], " = ", wanted[i]);
  const RuleRef& r = book_.rules()[rule];
  diagnostics_
      .error(r.scope.file->source, r.rule->name.span, "ucl.index_gap",
             cat("nothing of the checkpoint fits ", ucl::text_of(r.rule->name), " at ", where,
                 ", and other names have these numbers"))
      .hint("tensors of the checkpoint are missing");
}

void NameRules::tell_indexes() {
  for (const auto& [capture, ref] : book_.indices()) {
    const std::string& name = capture;
    const IndexRef& index = ref;
    const std::vector<int64_t>& numbers = numbers_[name].sorted();
    if (numbers.empty()) continue;
    const auto error = [&](std::string message) -> ucl::Diagnostic& {
      return diagnostics_.error(index.scope.file->source, index.index->name.span, "ucl.index_gap",
                                std::move(message));
    };
    const auto found = static_cast<int64_t>(numbers.size());
    if (numbers.back() != found - 1) {
      int64_t gap = 0;
      while (numbers[static_cast<size_t>(gap)] == gap) ++gap;
      error(
          cat("nothing of the checkpoint has ", name, " = ", gap, ", and other names have ", numbers.back()))
          .hint(
              "numbers count from 0 and leave no gap: tensors of the checkpoint are missing, or the numbers "
              "in its names are to be written with an offset, as `{i + 1}`");
      continue;
    }
    if (!index.index->count) continue;
    const auto count =
        facts_.evaluate(*index.index->count, index.scope, [](std::string_view) { return Linear::beyond(); })
            .value();
    if (!count || *count == found) continue;
    const std::string size = ucl::text_of(*index.index->count);
    error(cat("expected ", size, " = ", *count, " numbers of `", name, "`, found ", found))
        .hint(cat("tensors of the checkpoint are missing, or --set ", size, "=", found,
                  " says how many there should be"));
  }
}

std::string renumbered(const ucl::NamePattern& pattern, const std::string& name,
                       const std::map<std::string, int64_t, std::less<>>& numbers) {
  if (numbers.empty()) return name;
  std::vector<std::string> segments;
  for (const std::string_view s : ucl::split_name(name)) segments.emplace_back(s);
  for (size_t i = 0; i < pattern.segments.size(); ++i) {
    const ucl::Segment& segment = pattern.segments[i];
    if (segment.kind != ucl::Segment::Kind::kCapture) continue;
    const auto number = numbers.find(segment.capture->name.text);
    if (number == numbers.end()) continue;
    const bool behind_rest = pattern.rest >= 0 && i > static_cast<size_t>(pattern.rest);
    segments[behind_rest ? segments.size() - (pattern.segments.size() - i) : i] =
        cat(segment.pieces[0], number->second + segment.capture->offset, segment.pieces[1]);
  }
  std::string out;
  for (const std::string& s : segments) out += cat(out.empty() ? "" : ".", s);
  return out;
}

}  // namespace uckpt::layout
