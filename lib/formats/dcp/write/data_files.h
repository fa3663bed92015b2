// The data files of a distributed checkpoint while they are laid out: `__RANK_NUMBER.distcp`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
  explicit DataFileBook(int64_t most) : most_(most) {}

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
  std::vector<Entry> items_;
};

}  // namespace uckpt::dcp
