// The shards that torch 2.13's HuggingFaceStorageWriter(save_distributed=True) leaves: weights in safetensors
// files `shard-RRRRR-model-FFFFF-of-NNNNN.safetensors`, one for each rank R and target file F, whose metadata
// `DCP_SHARDING_INFO` says where each tensor's box begins. HuggingFaceStorageReader loads them, and torch's
// consolidate_safetensors_files makes of them the NNNNN files of a model.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::dcp {

// Of each parameter the fp32 master, else the weight, and buffers. `shard_size` bounds the bytes of a target
// file, over all ranks. The configuration of a model is written beside them, as transformers'
// save_pretrained(distributed_checkpoint=True) does. A rank that writes nothing has no number. Throws what
// `mesh_of` does; refused `safetensors.dtype`, `safetensors.name`, and `dcp.cut` for a rank with several
// boxes of one tensor.
TargetLayout lay_out_hugging_face(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::dcp
