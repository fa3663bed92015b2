// One torch.save item of a data file while it is made: an archive of its own, which gets its place later.
#pragma once

#include "lib/formats/torch/archive.h"
#include "lib/pickle/pickler.h"
#include "lib/tensor/target.h"

namespace uckpt::dcp {

// Adds a shard that is one box of a tensor, row-major; neither is empty. `is_copy`: another shard has these
// elements, too. Tells its number.
uint32_t add_box_shard(TargetLayout& layout, const Catalog& catalog, uint32_t tensor, const Shape& offsets,
                       const Shape& sizes, bool is_copy);

class Item {
 public:
  // Shards are added to `layout`; holes are not, until the item has its place in a file.
  Item(const Catalog& catalog, TargetLayout& layout) : catalog_(catalog), layout_(layout) {}

  pickle::Pickler& out() { return out_; }

  // Writes a box of a tensor, in elements, as a contiguous tensor with a storage of its own. `is_copy`:
  // another item has these elements, too. Throws refused `tensor.dtype` for types that torch lacks.
  void box(uint32_t tensor, DType dtype, const Shape& offsets, const Shape& sizes, bool is_copy);
  void whole(uint32_t tensor, DType dtype, bool is_copy);

  // The item as if it were a file alone: fixed bytes, holes and checksums of one nameless file.
  TargetLayout finish() &&;

 private:
  const Catalog& catalog_;
  TargetLayout& layout_;
  torch::Archive archive_{"archive"};
  pickle::Pickler out_;
};

}  // namespace uckpt::dcp
