#include "lib/formats/dcp/stored.h"

#include <stdexcept>

namespace uckpt::dcp {

Shape Boxes::offsets(size_t i) const {
  Shape out(rank_);
  for (size_t d = 0; d < rank_; ++d) out[d] = offset(i, d);
  return out;
}

Shape Boxes::sizes(size_t i) const {
  Shape out(rank_);
  for (size_t d = 0; d < rank_; ++d) out[d] = extent(i, d);
  return out;
}

void Boxes::push_back(const Shape& offsets, const Shape& sizes) {
  if (size_ == 0) rank_ = offsets.size();
  if (offsets.size() != rank_ || sizes.size() != rank_)
    throw std::logic_error("boxes of one tensor have the same dims");
  for (size_t d = 0; d < rank_; ++d) {
    numbers_.push_back(offsets[d]);
    numbers_.push_back(sizes[d]);
  }
  ++size_;
}

Chunk Chunks::operator[](size_t i) const {
  const auto at = transforms_.find(i);
  return {boxes_.offsets(i), boxes_.sizes(i), items_[i],
          at == transforms_.end() ? std::string() : at->second};
}

void Chunks::reserve(size_t count, size_t rank) {
  boxes_.reserve(count, rank);
  items_.reserve(count);
}

void Chunks::push_back(const Chunk& chunk) {
  if (!chunk.transforms.empty()) transforms_.emplace(size(), chunk.transforms);
  boxes_.push_back(chunk.offsets, chunk.sizes);
  items_.push_back(chunk.item);
}

}  // namespace uckpt::dcp
