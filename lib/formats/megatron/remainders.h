// Masters of Megatron's precision-aware optimizer: by default it keeps of each only the 16 bits that a bf16
// weight lacks of it (`store_param_remainders`), and saves them as numbers, mostly in fp32 arrays (read, in
// Transformer Engine).
#pragma once

#include "lib/tensor/catalog.h"

namespace uckpt::megatron {

// Stands for all of them in a catalog.
Tensor refused_remainders();

// Where all masters are such, the weights are as the model has them, and the masters stand apart, refused.
void set_remainders_apart(Catalog& catalog);

}  // namespace uckpt::megatron
