// Which numbers of its memo a pickle asks for again: of the values that Python's pickler remembers, which are
// most of them, it is one in a hundred.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "lib/pickle/window.h"

namespace uckpt::pickle {

class Recalled {
 public:
  // Skims the opcodes. What is malformed ends it: the machine will say so at the same place.
  Recalled(size_t size, const ReadAt& read);

  // A place from 0 to count() for each number that is asked for; nothing for others.
  std::optional<uint32_t> place(uint32_t index) const {
    if (index / 64 < bits_.size()) {
      const uint64_t word = bits_[index / 64], bit = uint64_t{1} << index % 64;
      if (word & bit) return before_[index / 64] + static_cast<uint32_t>(std::popcount(word & (bit - 1)));
    }
    const auto found = odd_.find(index);
    return found == odd_.end() ? std::nullopt : std::optional(found->second);
  }
  size_t count() const { return count_; }

 private:
  void note(uint32_t index, size_t remembered);

  std::vector<uint64_t> bits_;                  // of numbers below the count of values remembered by then
  std::vector<uint32_t> before_;                // set bits in the words before
  std::unordered_map<uint32_t, uint32_t> odd_;  // the place of any other number
  size_t count_ = 0;
};

}  // namespace uckpt::pickle
