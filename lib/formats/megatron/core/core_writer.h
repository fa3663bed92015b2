// Megatron-core's distributed checkpoints ("torch_dist"), for any mesh: a root with
// `latest_checkpointed_iteration.txt` and `iter_%07d`, or `release` where nothing tells an iteration; in it
// metadata.json, common.pt, `.metadata` and `__RANK_0.distcp`.
//
// Layers are stacked where they are alike; each layer, and each expert, is one chunk. Optimizer states are
// `fully_reshardable`, or `plain` where the source's optimizer is not distributed. Facts: files by
// megatron-core 0.16.1, and what its `dist_checkpointing.load` asks for.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::megatron {

// With `request.shards` the vocabulary is padded as the target's ranks have it.
TargetLayout lay_out_core(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::megatron
