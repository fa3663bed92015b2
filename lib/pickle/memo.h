// What BINPUT and MEMOIZE remember. Writers count up from zero, which an array holds; a file that picks its
// own numbers costs one map entry each, never an array of that size. Where it is known what will be asked
// for, all else is only counted.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "lib/pickle/recalled.h"

namespace uckpt::pickle {

class Memo {
 public:
  Memo() = default;
  explicit Memo(const Recalled& recalled) : recalled_(&recalled), dense_(recalled.count(), kNothing) {}

  void put(uint32_t index, uint32_t node) {
    if (recalled_) {
      note(index);
      if (const auto place = recalled_->place(index)) dense_[*place] = node;
    } else if (index < dense_.size()) {
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
    if (recalled_) {
      const auto place = recalled_->place(index);
      return place ? dense_[*place] : kNothing;
    }
    if (index < dense_.size()) return dense_[index];
    const auto found = sparse_.find(index);
    return found == sparse_.end() ? kNothing : found->second;
  }
  size_t size() const { return (recalled_ ? noted_ : dense_.size()) + sparse_.size(); }

 private:
  static constexpr uint32_t kNothing = 0xffffffff;

  // Counts numbers, not values: up to `noted_` all are taken, and those in `sparse_`.
  void note(uint32_t index) {
    if (index < noted_) return;
    if (index > noted_) {
      sparse_[index] = kNothing;
      return;
    }
    ++noted_;
    if (!sparse_.empty()) sparse_.erase(index);
  }

  const Recalled* recalled_ = nullptr;
  std::vector<uint32_t> dense_;  // by number; by place, of what will be asked for
  std::unordered_map<uint32_t, uint32_t> sparse_;
  size_t noted_ = 0;
};

}  // namespace uckpt::pickle
