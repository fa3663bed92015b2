#include "lib/formats/deepspeed/write/shard_book.h"

#include "lib/formats/cut_shard.h"

namespace uckpt::deepspeed {

ShardBook::ShardBook(const Catalog& catalog, TargetLayout& layout, const Shards* cut)
    : catalog_(catalog), layout_(layout), cut_(cut) {
  if (!cut) return;
  for (const RankShards& rank : cut->ranks) {
    auto& of_rank = shards_of_.emplace_back();
    for (const Shard& s : rank.shards)
      if (!s.is_number) of_rank.try_emplace(s.tensor, &s);
  }
}

ShardBook::Part ShardBook::whole_part(uint32_t tensor) {
  const auto [at, is_new] = wholes_.try_emplace(tensor);
  if (is_new) {
    const uint32_t shard = layout_.add_whole_shard(catalog_, tensor);
    at->second = {shard, catalog_.tensors[tensor].shape, layout_.shards[shard].numel};
  }
  return at->second;
}

std::optional<ShardBook::Part> ShardBook::find(uint32_t tensor) {
  const Tensor& t = catalog_.tensors[tensor];
  const auto is_anywhere = [&] {
    for (const auto& rank : shards_of_)
      if (rank.contains(tensor)) return true;
    return false;
  };
  if (shards_of_.empty() || !is_anywhere()) return whole_part(tensor);
  const auto known = parts_.find({rank_, tensor});
  if (known != parts_.end()) return known->second;
  const auto found = shards_of_[rank_].find(tensor);
  if (found == shards_of_[rank_].end()) return std::nullopt;
  const Shard& s = *found->second;
  const uint32_t number = add_cut_shard(layout_, *cut_, s, tensor);
  if (item_size(t.dtype) == 0)
    throw refused("deepspeed.sub_byte", "a tensor of a type under a byte cannot be cut over ranks")
        .in_file(catalog_.path)
        .in_tensor(t.path());
  const Part part{number, s.shape, numel_of(s.shape)};
  parts_.emplace(std::pair(rank_, tensor), part);
  return part;
}

ShardBook::Part ShardBook::part(uint32_t tensor) { return find(tensor).value(); }

void ShardBook::own(uint32_t tensor) {
  if (const auto part = find(tensor)) owners_.try_emplace(part->shard, model_rank_);
}

Hole ShardBook::range(uint32_t tensor, int64_t first, int64_t count) {
  const uint32_t shard = part(tensor).shard;
  const auto owner = owners_.find(shard);
  const bool is_copy = owner == owners_.end() || owner->second != model_rank_;
  return {shard, 0, 0, first, count, optimizer_dtype(catalog_.tensors[tensor]), is_copy};
}

Hole ShardBook::whole(uint32_t tensor, DType dtype) {
  const Part p = part(tensor);
  const bool is_copy = !owners_.try_emplace(p.shard, kWhole).second;
  return {p.shard, 0, 0, 0, p.numel, dtype, is_copy};
}

}  // namespace uckpt::deepspeed
