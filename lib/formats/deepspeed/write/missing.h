// What a DeepSpeed checkpoint has and an input may lack: masters, the optimizer's states, its groups.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::deepspeed {

// Where there is no master, fp32 weights with states of an optimizer are masters: a distributed checkpoint of
// PyTorch has them so. With `fill`: fp32 masters are taken from the weights, states that begin at zero are
// zeros, a step is 0, and one group with the defaults of torch's AdamW is made, or those that have no options
// get them; `notes` says all of it.
// Without: throws refused `deepspeed.no_masters`, `deepspeed.no_groups` or `deepspeed.missing` for the first
// thing that is not there.
void complete(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill, std::vector<std::string>& notes);

}  // namespace uckpt::deepspeed
