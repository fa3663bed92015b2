// Many patterns at once: which of them match a name, without trying each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/ucl/name_pattern.h"

namespace uckpt::ucl {

// A tree over segments. A pattern with `**` is a path of what stands before it, then one of what stands
// behind it, from its end. A query visits each node at most once, and of literal children only the one that
// fits.
class PatternIndex {
 public:
  PatternIndex() : nodes_(1) {}

  // The pattern must outlive the index. Ids are the caller's; invalid patterns are left out.
  void add(const NamePattern& pattern, uint32_t id);

  // The ids of the patterns that match, ascending.
  std::vector<uint32_t> matching(std::string_view name) const;
  // The ids of the patterns that cover (see `covers`) the whole of `narrow`, ascending.
  // `work` grows by what was looked at: a caller with a bound on its time can go by it.
  std::vector<uint32_t> covering(const NamePattern& narrow, uint64_t& work) const;

 private:
  struct TextHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  struct Entry {
    const NamePattern* pattern;
    uint32_t id;
    bool repeats;  // captures of one name
  };
  struct Node {
    std::unordered_map<std::string, uint32_t, TextHash, std::equal_to<>> literal, others;
    std::vector<std::pair<const Segment*, uint32_t>> wide;  // of `others`, whose keys only tell them apart
    uint32_t rest = 0;  // the node where the paths behind a `**` begin; 0: none
    std::vector<Entry> ends;
  };

  template <class Query>
  class Walk;
  uint32_t child(uint32_t node, const Segment& segment);

  std::vector<Node> nodes_;
};

}  // namespace uckpt::ucl
