// One tensor's bytes, row-major, in order, with bounded memory.
#pragma once

#include <functional>

#include "lib/tensor/catalog.h"

namespace uckpt {

// Calls `sink` with consecutive pieces of the tensor's little-endian row-major bytes.
void read_tensor(const Catalog& catalog, const Tensor& tensor, const std::function<void(ByteSpan)>& sink);

}  // namespace uckpt
