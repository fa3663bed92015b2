#include "lib/formats/dcp/stored.h"

#include <stdexcept>

namespace uckpt::dcp {

Chunk Chunks::operator[](size_t i) const {
  Chunk out;
  out.offsets.reserve(rank_), out.sizes.reserve(rank_);
  for (size_t d = 0; d < rank_; ++d) {
    out.offsets.push_back(offset(i, d));
    out.sizes.push_back(extent(i, d));
  }
  out.item = items_[i];
  if (const auto at = transforms_.find(i); at != transforms_.end()) out.transforms = at->second;
  return out;
}

void Chunks::reserve(size_t count, size_t rank) {
  boxes_.reserve(count * rank * 2);
  items_.reserve(count);
}

void Chunks::push_back(const Chunk& chunk) {
  if (empty()) rank_ = chunk.offsets.size();
  if (chunk.offsets.size() != rank_ || chunk.sizes.size() != rank_)
    throw std::logic_error("chunks of one tensor have the same dims");
  if (!chunk.transforms.empty()) transforms_.emplace(size(), chunk.transforms);
  for (size_t d = 0; d < rank_; ++d) {
    boxes_.push_back(chunk.offsets[d]);
    boxes_.push_back(chunk.sizes[d]);
  }
  items_.push_back(chunk.item);
}

}  // namespace uckpt::dcp
