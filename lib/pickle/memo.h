// What BINPUT and MEMOIZE remember. Writers count up from zero, which an array holds; a file that picks its
// own numbers costs one map entry each, never an array of that size.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace uckpt::pickle {

class Memo {
 public:
  void put(uint32_t index, uint32_t node) {
    if (index < dense_.size()) {
      dense_[index] = node;
    } else if (index == dense_.size()) {
      dense_.push_back(node);
      if (!sparse_.empty()) sparse_.erase(index);
    } else {
      sparse_[index] = node;
    }
  }
  // 0xffffffff if nothing is remembered there.
  uint32_t get(uint32_t index) const {
    if (index < dense_.size()) return dense_[index];
    const auto found = sparse_.find(index);
    return found == sparse_.end() ? 0xffffffff : found->second;
  }
  size_t size() const { return dense_.size() + sparse_.size(); }

 private:
  std::vector<uint32_t> dense_;
  std::unordered_map<uint32_t, uint32_t> sparse_;
};

}  // namespace uckpt::pickle
