// Optimizers without ZeRO: numbered states in the model file, or in expp_rank files where there are experts.
#pragma once

#include <string>
#include <unordered_set>

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"
#include "lib/formats/deepspeed/weights.h"

namespace uckpt::deepspeed {

// Adds the optimizer's states, and the fp32 weights of the 16-bit wrappers, under the names of the weights.
// Returns the names the optimizer updates. Where names cannot be told (`deepspeed.unnamed_states`) the
// optimizer becomes a tensor that cannot be converted, beside which all else can.
std::unordered_set<std::string> add_plain_optimizers(Builder& builder, Checkpoint& checkpoint,
                                                     const Weights& weights);

}  // namespace uckpt::deepspeed
