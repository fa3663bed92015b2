// Elements that several ranks hold: which of them is first.
#pragma once

#include <vector>

#include "lib/layout/view.h"

namespace uckpt::layout {

// A rank's view, parted into what no rank before it has, and copies.
struct Split {
  View fresh, again;
};

// Views of one tensor, in the order of their ranks. Throws `layout.copies` where two hold some of the same
// elements, cut along lines that have no common factoring.
std::vector<Split> split_copies(std::vector<View> views);

}  // namespace uckpt::layout
