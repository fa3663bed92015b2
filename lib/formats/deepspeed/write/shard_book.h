// The shards of a target's model ranks, and which of its holes repeat what others have.
#pragma once

#include <map>
#include <optional>
#include <utility>

#include "lib/tensor/shards.h"
#include "lib/tensor/target.h"

namespace uckpt::deepspeed {

// The type in which an optimizer's file has a tensor: masters are fp32, also where they come from a weight.
inline DType optimizer_dtype(const Tensor& t) {
  return t.state == state::kMaster && is_float(t.dtype) ? DType::kF32 : t.dtype;
}

class ShardBook {
 public:
  // `cut`: what each tensor parallel rank holds; null where every rank holds all.
  ShardBook(const Catalog& catalog, TargetLayout& layout, const Shards* cut);

  // All that follows is of this model rank, whose shards are those of the tensor parallel rank.
  void turn_to(int64_t model_rank, int64_t tp_rank) {
    model_rank_ = model_rank;
    rank_ = static_cast<size_t>(tp_rank);
  }

  // What the rank holds of a tensor; nothing where its share is empty.
  struct Part {
    uint32_t shard;
    Shape shape;
    int64_t numel;
  };
  std::optional<Part> find(uint32_t tensor);
  Part part(uint32_t tensor);  // of one that the rank has

  // This model rank writes the shard in ranges, all of it, if no other does so: what else is written of it
  // are copies.
  void own(uint32_t tensor);
  Hole range(uint32_t tensor, int64_t first, int64_t count);
  // All of the shard; a copy where it was owned or written before.
  Hole whole(uint32_t tensor, DType dtype);

  const Catalog& catalog() const { return catalog_; }
  const Shards* cut() const { return cut_; }
  TargetLayout& layout() { return layout_; }

 private:
  static constexpr int64_t kWhole = -1;  // written in one piece
  Part whole_part(uint32_t tensor);

  const Catalog& catalog_;
  TargetLayout& layout_;
  const Shards* cut_;
  int64_t model_rank_ = 0;
  size_t rank_ = 0;                                          // tensor parallel
  std::vector<std::map<uint32_t, const Shard*>> shards_of_;  // by rank, tensor
  std::map<std::pair<size_t, uint32_t>, Part> parts_;        // by rank, tensor
  std::map<uint32_t, Part> wholes_;                          // by tensor
  std::map<uint32_t, int64_t> owners_;                       // of shards: the model rank, or kWhole
};

}  // namespace uckpt::deepspeed
