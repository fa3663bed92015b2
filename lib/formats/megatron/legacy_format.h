// Megatron-LM's legacy checkpoints, a folder for each model parallel rank: `mp_rank_*/model_optim_rng.pt`.
#pragma once

#include "lib/formats/format.h"

namespace uckpt::megatron {

bool recognises_legacy(const Target& target);
Catalog read_legacy(const Target& target, const OpenOptions& options);

}  // namespace uckpt::megatron
