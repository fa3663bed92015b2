// Megatron-core's distributed checkpoints: "torch_dist" (metadata.json, common.pt, `.metadata` and *.distcp),
// and those that torch itself writes for Megatron's FSDP ("fsdp_dtensor", "torch_dcp").
#pragma once

#include "lib/formats/format.h"

namespace uckpt::megatron {

bool recognises_core(const Target& target);
Catalog read_core(const Target& target, const OpenOptions& options);

}  // namespace uckpt::megatron
