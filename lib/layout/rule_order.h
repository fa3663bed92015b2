// The order of names that a layout's rules give, index by index.
#pragma once

#include <string>
#include <vector>

#include "lib/layout/rule_book.h"

namespace uckpt::layout {

// Rules whose names begin alike up to a number are one block, where the first of them stands: in it, all
// names with number 0 come first, by the order of the rules, then all with 1. So inside of each number too.
class RuleOrder {
 public:
  explicit RuleOrder(const RuleBook& book);

  // Names are in the order of their keys; of those with one key, a rule says nothing.
  using Key = std::vector<int64_t>;
  Key key_of(uint32_t rule, const std::string& name) const;

 private:
  struct Block {
    const ucl::Capture* capture;
    uint32_t first;  // rule of the block
  };
  const RuleBook& book_;
  std::vector<std::vector<Block>> blocks_;  // of each rule, outermost first
};

}  // namespace uckpt::layout
