// A rank's part of a tensor among the shards of an output.
#pragma once

#include <cstdint>

#include "lib/tensor/shards.h"
#include "lib/tensor/target.h"

namespace uckpt {

// Adds what the rules give a rank of a tensor, as they give it: its boxes, padding and value. Returns its
// number.
uint32_t add_cut_shard(TargetLayout& layout, const Shards& cut, const Shard& shard, uint32_t tensor);

}  // namespace uckpt
