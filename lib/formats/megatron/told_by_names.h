// What the names of a model's weights tell that the run's arguments leave open, or that does not fit them.
#pragma once

#include "lib/tensor/catalog.h"

namespace uckpt::megatron {

// Arguments that older versions lack: biases of QKV alone, norms of queries and keys.
void add_settings_of_names(Catalog& catalog);

// Of a model with experts, where rules cannot say which layers are dense: each layer that attends has an MLP,
// or a router and experts. Else the catalog is refused: `megatron.layers`.
void check_layers_of_experts(Catalog& catalog);

}  // namespace uckpt::megatron
