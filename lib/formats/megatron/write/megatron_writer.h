// Megatron's legacy checkpoints ("torch" format), for any mesh: a root with
// `latest_checkpointed_iteration.txt` and `iter_%07d`, or `release` where nothing tells an iteration; in it a
// folder for each rank of tensor, pipeline and expert parallelism.
//
// Module weights lie in model_optim_rng.pt, masters and states beside them in distrib_optim.pt, or in that
// file too where the source's optimizer is not distributed.
#pragma once

#include "lib/formats/megatron/write/target_mesh.h"
#include "lib/formats/writer.h"

namespace uckpt::megatron {

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::megatron
