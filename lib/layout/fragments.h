// The fragments of a checkpoint, each under the rule that takes it and its logical name.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/layout/rule_book.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

struct Fragment {
  const RankSet* set;
  const Tensor* tensor;
};

// One value a parameter, read at open: a step count.
bool is_number(const Catalog& catalog, const Tensor& tensor);

// All fragments of one logical tensor.
struct Parts {
  std::string state, name;  // global numbers
  uint32_t rule = 0;
  std::vector<Fragment> fragments;  // by rank set
};

// One parameter under one rule: its sizes are solved together, over all its states.
struct Match {
  uint32_t rule = 0;
  std::string name;
  std::vector<size_t> parts;  // indices into Sorted::parts
};

// A name that stands for another tensor of the same rank set.
struct AliasName {
  std::string state, name, target_state, target_name;
};

struct Sorted {
  std::vector<Parts> parts;  // in order of appearance
  std::vector<Match> matches;
  std::vector<Parts> scattered;  // described by the input itself, under no rule
  std::vector<Parts> numbers;    // one value a parameter: they follow it, and must agree
  std::vector<AliasName> aliases;
  std::set<std::string> dropped;  // names of tensors with elements
};

// Does a rule take each of its names? Far quicker than `sort_fragments`, which says the same of all ranks.
bool takes_names_of(const RankSet& set, const Catalog& catalog, const RuleBook& book, const Facts& facts);
// The names that it does not take, in order.
std::set<std::string> strangers_of(const RankSet& set, const Catalog& catalog, const RuleBook& book,
                                   const Facts& facts);

// Of names that the input describes itself (`Catalog::scattered`), leaves those alone that no rule takes: for
// rules that somebody gave, which go before what the input says.
void leave_to_rules(Catalog& catalog, const RuleBook& book, const Facts& facts);

// Matches every name, and turns local numbers into global ones. Says which names no rule takes, which rules
// take nothing, and which numbers one of them misses.
Sorted sort_fragments(const Catalog& catalog, const RuleBook& book, const Facts& facts,
                      ucl::Diagnostics& diagnostics, bool rules_go_first = false);

}  // namespace uckpt::layout
