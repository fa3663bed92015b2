// The data files of a distributed checkpoint while they are laid out: `__RANK_NUMBER.distcp`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/formats/dcp/write/chunks.h"
#include "lib/tensor/target.h"

namespace uckpt::dcp {

// Where an item lies.
struct ItemPlace {
  std::string file;
  int64_t offset = 0, length = 0;
};

class DataFileBook {
 public:
  // `most`: bytes of one file, unless a single item is larger; 0: one file a rank.
  DataFileBook(int64_t ranks, int64_t most) : most_(most), loads_(static_cast<size_t>(ranks)) {}

  // The rank that is to write what all of `ranks` hold (empty: all ranks): that with the fewest bytes up to
  // now, as torch's planner removes duplicates. `bytes` are of the value, without the item around it.
  int64_t choose(const std::vector<int64_t>& ranks, int64_t bytes);

  // Adds an item at the end of a rank's file; its place is told by `lay_out`. Returns its number.
  size_t add(int64_t rank, TargetLayout item);

  // Adds all files to the layout, rank by rank, and tells where each item lies.
  std::vector<ItemPlace> lay_out(TargetLayout& layout) &&;

 private:
  struct Entry {
    int64_t rank;
    TargetLayout item;
  };
  const int64_t most_;
  std::vector<int64_t> loads_;  // bytes of each rank
  std::vector<Entry> items_;
};

}  // namespace uckpt::dcp
