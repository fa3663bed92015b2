// DeepSpeed checkpoints: ZeRO stages 0 to 3, pipeline and MoE files, and the universal folder.
#pragma once
#include "lib/formats/format.h"
namespace uckpt::deepspeed {
bool recognises(const Target& target);
Catalog read(const Target& target, const OpenOptions& options);
}  // namespace uckpt::deepspeed
