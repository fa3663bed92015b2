// ZeRO stages 1 and 2: every param group is one flat buffer, cut into equal partitions.
#pragma once

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"

namespace uckpt::deepspeed {

// Adds all states of one model rank. The parameters lie back to back in the order of `param_shapes`, whatever
// param_slice_mappings say: with round_robin_gradients these are wrong, and it becomes a fact of the catalog.
// Sizes that do not fit become a problem (`deepspeed.sizes`) and refusals of the tensors.
void add_zero12(Builder& builder, Checkpoint& checkpoint, int64_t model_rank);

// Without ZeRO in its config a bf16 pipeline writes partitions (BF16_Optimizer), but no param_shapes. Makes
// them of the ranks' param_slice_mappings, which that optimizer gets right, and the shapes of the layer
// files. Throws `deepspeed.unnamed_states` where they do not tell.
void name_partitions(Checkpoint& checkpoint, int64_t model_rank);

}  // namespace uckpt::deepspeed
