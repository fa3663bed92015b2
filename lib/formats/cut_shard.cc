#include "lib/formats/cut_shard.h"

namespace uckpt {

uint32_t add_cut_shard(TargetLayout& layout, const Shards& cut, const Shard& shard, uint32_t tensor) {
  const auto boxes = cut.boxes_of(shard);
  const auto number = static_cast<uint32_t>(layout.shards.size());
  layout.shards.push_back({tensor, numel_of(shard.shape), static_cast<uint32_t>(layout.pieces.size()),
                           static_cast<uint32_t>(boxes.size()), shard.is_padded, shard.factor,
                           shard.summand});
  for (const ShardBox& box : boxes) {
    layout.pieces.push_back(
        {box.offset, static_cast<uint32_t>(layout.axes.size()), box.rank, !box.is_primary});
    const auto axes = cut.axes_of(box);
    layout.axes.insert(layout.axes.end(), axes.begin(), axes.end());
  }
  return number;
}

}  // namespace uckpt
