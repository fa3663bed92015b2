#include "lib/formats/dcp/write/data_files.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "lib/base/memory.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

SharedBytes DataFileBook::shared(const SharedBytes& bytes) {
  return known_.try_emplace(bytes.text(), bytes).first->second;
}

uint32_t DataFileBook::add(int64_t rank, TargetLayout item) {
  items_.push_back({rank, item.files.front().size, fixed_.size(), holes_.size(), checksums_.size()});
  for (const FixedBytes& fixed : item.files.front().fixed)
    fixed_.push_back({fixed.offset, shared(fixed.bytes)});
  holes_.insert(holes_.end(), item.holes.begin(), item.holes.end());
  std::ranges::move(item.checksums, std::back_inserter(checksums_));
  return static_cast<uint32_t>(items_.size() - 1);
}

// Puts an item behind what the newest file has.
void DataFileBook::append(TargetLayout& layout, size_t i) {
  const auto number = static_cast<uint32_t>(layout.files.size() - 1);
  TargetFile& file = layout.files.back();
  const int64_t shift = file.size;
  const auto first_hole = static_cast<uint32_t>(layout.holes.size());
  const bool is_last = i + 1 == items_.size();
  for (size_t f = items_[i].fixed; f < (is_last ? fixed_.size() : items_[i + 1].fixed); ++f)
    file.fixed.push_back({fixed_[f].offset + shift, std::move(fixed_[f].bytes)});
  for (size_t h = items_[i].holes; h < (is_last ? holes_.size() : items_[i + 1].holes); ++h) {
    Hole& hole = layout.holes.emplace_back(holes_[h]);
    hole.file = number;
    hole.offset += shift;
  }
  for (size_t c = items_[i].checksums; c < (is_last ? checksums_.size() : items_[i + 1].checksums); ++c) {
    LateChecksum& checksum = layout.checksums.emplace_back(std::move(checksums_[c]));
    checksum.file = number;
    checksum.offset += shift;
    checksum.first_hole += first_hole;
    for (int64_t& place : checksum.places)
      if (place != LateChecksum::kNowhere) place += shift;
  }
  file.size += items_[i].size;
}

std::vector<ItemRange> DataFileBook::lay_out(TargetLayout& layout) && {
  known_.clear();
  std::vector<size_t> order(items_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return items_[i].rank; });
  layout.holes.reserve(layout.holes.size() + holes_.size());
  layout.checksums.reserve(layout.checksums.size() + checksums_.size());
  std::vector<ItemRange> out(items_.size());
  int64_t rank = -1, number = 0;
  for (const size_t i : order) {
    const Item& item = items_[i];
    const bool is_full = rank == item.rank && most_ > 0 && layout.files.back().size + item.size > most_;
    if (rank != item.rank || is_full) {
      number = is_full ? number + 1 : 0;
      rank = item.rank;
      layout.files.emplace_back().name = cat("__", rank, "_", number, ".distcp");
    }
    out[i] = {static_cast<uint32_t>(layout.files.size() - 1), layout.files.back().size, item.size};
    append(layout, i);
  }
  // What writes `.metadata` needs the memory.
  release(items_), release(fixed_), release(holes_), release(checksums_);
  return out;
}

}  // namespace uckpt::dcp
