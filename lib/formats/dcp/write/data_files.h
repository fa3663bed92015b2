// The data files of a distributed checkpoint while they are laid out: `__RANK_NUMBER.distcp`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/shared_bytes.h"
#include "lib/formats/dcp/stored.h"
#include "lib/tensor/target.h"

namespace uckpt::dcp {

class DataFileBook {
 public:
  // `most`: bytes of one file, unless a single item is larger; 0: one file a rank.
  explicit DataFileBook(int64_t most) : most_(most) {}

  // Adds an item, laid out as if it were a file alone, at the end of a rank's file; its place is told by
  // `lay_out`. Returns its number.
  uint32_t add(int64_t rank, TargetLayout item);

  // Adds all files to the layout, rank by rank, and tells where each item lies: `file` is its number there.
  std::vector<ItemRange> lay_out(TargetLayout& layout) &&;

 private:
  // Parts of the lists below; the next item's begin where they end.
  struct Item {
    int64_t rank, size;
    size_t fixed, holes, checksums;
  };
  SharedBytes shared(const SharedBytes& bytes);
  void append(TargetLayout& layout, size_t number);

  const int64_t most_;
  std::vector<Item> items_;
  std::vector<FixedBytes> fixed_;
  std::vector<Hole> holes_;
  std::vector<LateChecksum> checksums_;
  // A tensor's chunks are of two sizes at most on a thousand ranks, and so are the headers around them.
  std::unordered_map<std::string_view, SharedBytes> known_;
};

}  // namespace uckpt::dcp
