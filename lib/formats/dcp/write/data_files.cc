#include "lib/formats/dcp/write/data_files.h"

#include <algorithm>
#include <numeric>

#include "lib/base/text.h"

namespace uckpt::dcp {

namespace {

// Puts an item that is laid out as a file alone behind what the newest file has.
void append(TargetLayout& layout, TargetLayout item) {
  const auto number = static_cast<uint32_t>(layout.files.size() - 1);
  TargetFile& file = layout.files.back();
  TargetFile& from = item.files.front();
  const int64_t shift = file.size;
  const auto first_hole = static_cast<uint32_t>(layout.holes.size());
  for (FixedBytes& fixed : from.fixed) {
    fixed.offset += shift;
    file.fixed.push_back(std::move(fixed));
  }
  for (Hole& hole : item.holes) {
    hole.file = number;
    hole.offset += shift;
    layout.holes.push_back(hole);
  }
  for (LateChecksum& checksum : item.checksums) {
    checksum.file = number;
    checksum.offset += shift;
    checksum.first_hole += first_hole;
    for (int64_t& place : checksum.places) place += shift;
    layout.checksums.push_back(std::move(checksum));
  }
  file.size += from.size;
}

}  // namespace

size_t DataFileBook::add(int64_t rank, TargetLayout item) {
  items_.push_back({rank, std::move(item)});
  return items_.size() - 1;
}

std::vector<ItemPlace> DataFileBook::lay_out(TargetLayout& layout) && {
  std::vector<size_t> order(items_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return items_[i].rank; });
  std::vector<ItemPlace> out(items_.size());
  int64_t rank = -1, number = 0;
  for (const size_t i : order) {
    Entry& entry = items_[i];
    const int64_t length = entry.item.files.front().size;
    const bool is_full = rank == entry.rank && most_ > 0 && layout.files.back().size + length > most_;
    if (rank != entry.rank || is_full) {
      number = is_full ? number + 1 : 0;
      rank = entry.rank;
      layout.files.emplace_back().name = cat("__", rank, "_", number, ".distcp");
    }
    out[i] = {layout.files.back().name, layout.files.back().size, length};
    append(layout, std::move(entry.item));
    entry.item = {};
  }
  return out;
}

}  // namespace uckpt::dcp
