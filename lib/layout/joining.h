// The fragments of one tensor put together.
#pragma once

#include <functional>
#include <string>

#include "lib/layout/fragments.h"
#include "lib/layout/view.h"

namespace uckpt::layout {

// How one tensor's fragments lie in it.
struct Joining {
  Shape shape;                                         // of the whole
  std::function<View(const Fragment& fragment)> view;  // what each holds of it
  bool averaged = false;  // several wholes, to be averaged: `whole` tells them apart
  std::function<int64_t(const Fragment& fragment)> whole;
  std::string how;                           // for people
  std::string_view again = "copy on rank ";  // what a further rank holds, for messages
};

// The tensor, its pieces added to the catalog. Elements that a further rank holds too become copies, to be
// compared; what each fragment has beside it (module weights, replicas) becomes copies of the whole. A
// fragment that cannot be copied makes the tensor one that is refused.
Tensor join(Catalog& catalog, const Parts& parts, const Joining& joining);

// One more copy of the tensor, from fragments of another name.
void add_copy(Catalog& catalog, Tensor& tensor, const Fragment& fragment, const View& view, std::string what);

// Float types that means and factors are computed in.
bool has_arithmetic(DType dtype);

}  // namespace uckpt::layout
