#include "lib/ucl/check_hidden.h"

#include <algorithm>

#include "lib/ucl/text_of.h"

namespace uckpt::ucl {

namespace {

// Comparing patterns is cheap unless a hostile program makes thousands of near copies: then the search ends.
constexpr uint64_t kMaxWork = 5'000'000;

template <class Nodes>
std::vector<std::string> sorted_texts(const Nodes& nodes) {
  std::vector<std::string> out;
  for (const auto& node : nodes) out.push_back(text_of(node));
  std::sort(out.begin(), out.end());
  return out;
}

// Is all of `part` in `whole`?
bool includes(const std::vector<std::string>& whole, const std::vector<std::string>& part) {
  return std::includes(whole.begin(), whole.end(), part.begin(), part.end());
}

// Wherever `later` holds, `earlier` does: it has no condition of its own, and no fewer states.
bool holds_wherever(const HidingRules::Entry& earlier, const HidingRules::Entry& later) {
  if (!includes(later.when, earlier.when)) return false;
  return earlier.states.empty() || (!later.states.empty() && includes(earlier.states, later.states));
}

}  // namespace

HidingRules::Entry HidingRules::entry(const NamePattern& name, const void* rule,
                                      const std::vector<Condition>& when, const std::vector<Name>& states) {
  return {&name, rule, sorted_texts(when), sorted_texts(states)};
}

const HidingRules::Entry* HidingRules::add(Entry entry) {
  if (work_ < kMaxWork)
    for (const uint32_t id : index_.covering(*entry.name, work_))
      if (holds_wherever(entries_[id], entry)) return &entries_[id];
  // What a hidden rule would hide, the one that hides it hides as well: only the others are kept.
  index_.add(*entry.name, static_cast<uint32_t>(entries_.size()));
  entries_.push_back(std::move(entry));
  return nullptr;
}

}  // namespace uckpt::ucl
