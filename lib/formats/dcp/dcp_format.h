// PyTorch distributed checkpoints (torch.distributed.checkpoint): a folder with `.metadata`, or the shards of
// its Hugging Face writer. Every tensor comes out whole, in the name and state that its key means.
#pragma once
#include "lib/formats/format.h"
namespace uckpt::dcp {
bool recognises(const Target& target);
Catalog read(const Target& target, const OpenOptions& options);
}  // namespace uckpt::dcp
