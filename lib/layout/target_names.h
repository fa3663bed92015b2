// The tensors that a target takes, each under the rule that places it.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/layout/name_rules.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// One name of one tensor.
struct TargetName {
  uint32_t tensor = 0;      // index in the catalog, of the one with the pieces
  std::string state, name;  // global numbers
  uint32_t rule = 0;
  bool is_number = false;  // one value a parameter, which lies where that lies
  bool is_first = false;   // of the tensor's names: the elements under the others are copies
  // Where its rule says `tied to`: that name, whose rule it is cut by. Index in the same list.
  std::optional<size_t> tied = {};
  uint32_t order = 0;  // as Shard::order
};

struct TargetNames {
  std::vector<TargetName> list;  // in the order of the tensors; those that only tied rules make are last
  std::map<std::string, int64_t, std::less<>> counts;  // of each capture: its highest number, and one
};

// Matches every name. Says which names no rule takes, which rules take nothing, which numbers one of them
// misses, and which ties lead nowhere.
TargetNames sort_names(const Catalog& catalog, std::span<const uint32_t> tensors, const RuleBook& book,
                       const Facts& facts, ucl::Diagnostics& diagnostics);

}  // namespace uckpt::layout
