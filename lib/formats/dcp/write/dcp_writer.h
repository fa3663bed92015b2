// PyTorch distributed checkpoints: `.metadata` and `__RANK_NUMBER.distcp`, as torch 2.13's FileSystemWriter
// makes them and torch.distributed.checkpoint.load takes them.
//
// Each tensor is cut over `--layout dp` ranks as FSDP2 cuts it, over `tp` by rules; what several ranks hold
// is written by one of them. A distributed checkpoint gets its own keys, nesting and objects back, a
// torch.save file its tree, and anything else the keys that torch.distributed.checkpoint.state_dict makes.
//
// Other than torch's: a rank with no rows of a tensor has no empty chunk of it, and no file if it has nothing
// at all.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::dcp {

// Throws trouble `usage.layout` for axes other than dp and tp; refused `dcp.…` for what cannot be written.
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

// torch's optimizers count steps in fp32 tensors: those of other types become such.
void complete(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill, std::vector<std::string>& notes);

}  // namespace uckpt::dcp
