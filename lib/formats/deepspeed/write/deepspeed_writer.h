// Native DeepSpeed checkpoints, as `load_checkpoint` of DeepSpeed 0.19.8 resumes from them.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::deepspeed {

// A root with `latest` and one tag folder. The mesh is `request.mesh`: dp, tp, pp, ep and zero (the stage);
// what is not there is as in the source. Throws refused `deepspeed.…` for what such a checkpoint cannot hold.
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::deepspeed
