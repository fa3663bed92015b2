// Pieces of one whole tensor as pieces of another that some of its elements go to.
#pragma once

#include "lib/layout/view.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// Adds to the catalog what `pieces` hold of the strand: `local` counts the elements of the tensor that they
// are pieces of (`from_numel` of them), `logical` those of the new one. `item` is the size of an element in
// bytes. Where the factorings nest this is one box for each two that meet.
void carry_pieces(Catalog& catalog, PieceRange pieces, const Strand& strand, int64_t from_numel,
                  int64_t to_numel, int64_t item);

// Pieces of one tensor whose factorings do not nest cannot be proven to tile it: takes those that do not nest
// with the ones before them apart into runs. The range is the catalog's last; returns what it became.
PieceRange make_nest(Catalog& catalog, PieceRange last, int64_t numel, int64_t item);

// Sorted by falling local stride, without loops of one step, neighbours made one where both sides allow.
Strand tidy(Strand strand);

}  // namespace uckpt::layout
