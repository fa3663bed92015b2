// The value of a small tensor, read while an output is laid out.
#pragma once

#include "lib/base/bytes.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// The bytes, at most 16, of a tensor of one element, an alias's too, in the order of this machine. Layouts
// never wait for tensor data, but a number that a pickle has to spell out, or that several parameters must
// agree on, is small. Throws refused `number.shape` for other tensors.
Bytes read_number(const Catalog& catalog, const Tensor& tensor);

}  // namespace uckpt
