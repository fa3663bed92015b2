// Native DeepSpeed checkpoints, as `load_checkpoint` of DeepSpeed 0.19.8 resumes from them.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::deepspeed {

// A root with `latest` and one tag folder. The mesh is `request.mesh`: dp, tp, pp, ep and zero (the stage);
// what is not there is as in the source. Throws refused `deepspeed.…` for what such a checkpoint cannot hold.
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

// A root with `latest_universal` and one universal folder, which loads at any number of ranks and at stages
// 1, 2 and 3. As DeepSpeed's own, it does not restore frozen parameters and buffers when it is loaded; they
// are in its model files.
TargetLayout lay_out_universal(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::deepspeed
