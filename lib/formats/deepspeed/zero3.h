// ZeRO stage 3: every parameter is cut by itself into equal pieces, one a rank, the last ones filled up.
#pragma once

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"

namespace uckpt::deepspeed {

// Adds all states of one model rank. Sizes that do not fit become a problem and refusals of the tensors.
void add_zero3(Builder& builder, Checkpoint& checkpoint, int64_t model_rank);

// Frozen parameters, whose pieces stand in the model files: /param.
void add_frozen3(Builder& builder, Checkpoint& checkpoint, int64_t model_rank);

}  // namespace uckpt::deepspeed
