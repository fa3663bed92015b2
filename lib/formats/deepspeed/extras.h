// What is in the checkpoint beside the model: loose tensors, objects, facts for people.
#pragma once

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"
#include "lib/formats/deepspeed/universal.h"
#include "lib/formats/deepspeed/weights.h"

namespace uckpt::deepspeed {

// Tensors that belong to no parameter: state "other", named by their path in the file. Where several files
// have the same path and not the same bytes, each is kept, its name led by the file's stem:
// `mp_rank_01_model_states.rng_state.0.torch_rng_state`.
void add_loose(Builder& builder, Checkpoint& checkpoint, UniversalFolder* universal);

// One object a model rank's model file and optimizer file, and one for each further file whose view differs
// once the layout is left out: ranks that say the same cost nothing.
void add_objects(Catalog& catalog, Checkpoint& checkpoint, UniversalFolder* universal);

// Lines for inspect, mesh, iteration, description, classes met.
void add_facts(Catalog& catalog, const Checkpoint& checkpoint, const Weights& weights,
               const UniversalFolder* universal);

}  // namespace uckpt::deepspeed
