// Names under the rules of a layout: which rule takes each, and what is wrong with them as a whole.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/layout/rule_book.h"

namespace uckpt::layout {

// A capture of a rule's name that takes local numbers.
struct LocalNumber {
  const ucl::Capture* capture;
  const IndexRef* index;
};

class NameRules {
 public:
  // All must outlive it.
  NameRules(const RuleBook& book, const Facts& facts, ucl::Diagnostics& diagnostics);

  std::optional<uint32_t> rule_for(const std::string& name, std::string_view state) const;
  const std::vector<LocalNumber>& local_numbers(uint32_t rule) const { return locals_[rule]; }

  // Says so where a wildcard of the rule takes a local number: it would take two tensors for one.
  void check_wildcard(const std::string& name, uint32_t rule);
  // A name, with global numbers, that the rule takes: before any used rule that would take it too.
  void note_use(uint32_t rule, const std::string& name);
  void note_unmatched(const std::string& name) { unmatched_.insert(name); }
  // Says which names no rule takes, which rules take nothing, which numbers one of them misses, and which
  // numbers of an index are missing.
  void tell();

 private:
  // The numbers that a capture took. Sorted when they are asked for, not kept so.
  class Numbers {
   public:
    void add(int64_t number) { list_.push_back(number); }
    const std::vector<int64_t>& sorted();

   private:
    std::vector<int64_t> list_;
  };
  struct Use {
    bool any = false;
    std::map<std::string, Numbers> numbers;
    std::set<std::vector<int64_t>> together;  // the numbers of its indexes, where it has several
    // The same numbers of the names with one text of a choice: by its capture and that text.
    std::map<std::pair<std::string, std::string>, std::map<std::string, Numbers>> chosen;
  };
  void add_name(uint32_t rule, const std::string& name);
  void find_indexes();
  void find_local_prefixes();
  void tell_unmatched();
  void tell_unused();
  void tell_missing(uint32_t rule);
  bool tell_gaps(const RuleRef& rule, std::map<std::string, Numbers>& numbers, const std::string& chosen);
  void tell_missing_together(uint32_t rule);
  void tell_indexes();

  const RuleBook& book_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  std::vector<std::vector<LocalNumber>> locals_;   // of each rule
  std::vector<std::vector<std::string>> indexes_;  // of each rule, in the order of its name
  std::vector<Use> used_;                          // of each rule, with what rules above it override
  std::map<std::string, Numbers> numbers_;         // of each capture, over all rules
  std::set<std::string> unmatched_;
  std::vector<std::unique_ptr<ucl::NamePattern>> local_prefixes_;
  ucl::PatternIndex local_index_;
  std::set<uint32_t> told_wildcards_;
};

// The name with other numbers where the captures of its pattern stand; `numbers` are less their offsets.
std::string renumbered(const ucl::NamePattern& pattern, const std::string& name,
                       const std::map<std::string, int64_t, std::less<>>& numbers);

}  // namespace uckpt::layout
