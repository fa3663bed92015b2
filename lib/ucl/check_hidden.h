// Finding rules that no name can reach. Internal to this room's check_*.cc.
#pragma once

#include <string>
#include <vector>

#include "lib/ucl/check_context.h"
#include "lib/ucl/pattern_index.h"

namespace uckpt::ucl {

// The rules of one block, or of one side of a map, in order: which of them hides a later one whole.
class HidingRules {
 public:
  struct Entry {
    const NamePattern* name = nullptr;
    const void* rule = nullptr;
    std::vector<std::string> when, states;  // sorted; no states: all of them
  };
  static Entry entry(const NamePattern& name, const void* rule, const std::vector<Condition>& when,
                     const std::vector<Name>& states);

  // An earlier entry that takes every name, in every case, that the new one could; null if there is none, and
  // then the new one is added. Good until the next call.
  const Entry* add(Entry entry);

 private:
  PatternIndex index_;
  std::vector<Entry> entries_;
  uint64_t work_ = 0;
};

}  // namespace uckpt::ucl
