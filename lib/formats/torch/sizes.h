// Sizes and strides as torch has them.
#pragma once

#include "lib/pickle/pickler.h"
#include "lib/tensor/catalog.h"

namespace uckpt::torch {

// The strides of a contiguous tensor, in elements; a dim without elements counts as one, as in torch. What
// 64 bits cannot count, as only tensors without elements have it, is INT64_MAX.
Shape row_major(const Shape& shape);

// A tuple of sizes, and the same as a torch.Size.
void write_tuple(pickle::Pickler& out, const Shape& shape);
void write_size(pickle::Pickler& out, const Shape& shape);

}  // namespace uckpt::torch
