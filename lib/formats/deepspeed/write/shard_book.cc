#include "lib/formats/deepspeed/write/shard_book.h"

namespace uckpt::deepspeed {

ShardBook::Part ShardBook::part(uint32_t tensor) {
  const auto [at, is_new] = shards_.try_emplace(tensor, 0);
  if (is_new) at->second = layout_.add_whole_shard(catalog_, tensor);
  return {at->second, catalog_.tensors[tensor].shape, layout_.shards[at->second].numel};
}

void ShardBook::own(uint32_t tensor, int64_t model_rank) {
  owners_.try_emplace(part(tensor).shard, model_rank);
}

Hole ShardBook::range(uint32_t tensor, int64_t model_rank, int64_t first, int64_t count) {
  const uint32_t shard = part(tensor).shard;
  const auto owner = owners_.find(shard);
  return {shard,
          0,
          0,
          first,
          count,
          catalog_.tensors[tensor].dtype,
          owner == owners_.end() || owner->second != model_rank};
}

Hole ShardBook::whole(uint32_t tensor, DType dtype) {
  const Part p = part(tensor);
  const bool is_copy = !owners_.try_emplace(p.shard, -1).second;
  return {p.shard, 0, 0, 0, p.numel, dtype, is_copy};
}

}  // namespace uckpt::deepspeed
