// One target tensor, put together from regions of source tensors.
#pragma once

#include <vector>

#include "lib/layout/view.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// What one source tensor gives: `strand.local` counts its elements, `strand.logical` those of the target.
struct Contribution {
  const Tensor* tensor = nullptr;
  Strand strand;
};

// The strand is all of a tensor of `numel` elements, in the same order.
bool is_all_of(const Strand& strand, int64_t numel);

// Fills in pieces, copies and means, which are added to the catalog's lists. `target` has its name, state,
// type and shape, and at least one contribution; together they are the whole of it. What cannot be done
// becomes its refusal. The contributions must not lie in the catalog's own list of tensors if that may grow.
void fill(Catalog& catalog, Tensor& target, const std::vector<Contribution>& contributions);

}  // namespace uckpt::layout
