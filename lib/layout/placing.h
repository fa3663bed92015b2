// Pieces of a fragment as pieces of the whole tensor.
#pragma once

#include <span>

#include "lib/layout/view.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// Adds to the catalog what the fragment's pieces hold of `view`: each element at its place in the whole
// tensor. `item` is the size of an element in bytes, `numel` counts those of the whole. Padding is left out.
void place_pieces(Catalog& catalog, PieceRange fragment, const View& view, int64_t numel, int64_t item);

}  // namespace uckpt::layout
