// The shards of a target's model ranks, and which of its holes repeat what others have.
#pragma once

#include <map>
#include <utility>

#include "lib/tensor/target.h"

namespace uckpt::deepspeed {

class ShardBook {
 public:
  ShardBook(const Catalog& catalog, TargetLayout& layout) : catalog_(catalog), layout_(layout) {}

  // What a tensor parallel rank holds of a tensor.
  struct Part {
    uint32_t shard;
    Shape shape;
    int64_t numel;
  };
  Part part(uint32_t tensor);

  // This model rank writes the shard in ranges, all of it: what others write of it are copies.
  void own(uint32_t tensor, int64_t model_rank);
  Hole range(uint32_t tensor, int64_t model_rank, int64_t first, int64_t count);
  // All of the shard; a copy where it was owned or written before.
  Hole whole(uint32_t tensor, DType dtype);

  const Catalog& catalog() const { return catalog_; }
  TargetLayout& layout() { return layout_; }

 private:
  const Catalog& catalog_;
  TargetLayout& layout_;
  std::map<uint32_t, uint32_t> shards_;  // by tensor
  std::map<uint32_t, int64_t> owners_;   // of shards: a model rank, or -1 where it was written whole
};

}  // namespace uckpt::deepspeed
