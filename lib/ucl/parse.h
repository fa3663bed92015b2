// From text to tree.
#pragma once

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// The tree of one source, comments attached. Syntax errors go to `diagnostics`, several in one run; then the
// tree holds what did parse and is not `complete`. What the program means is not looked at.
Program parse(const Source& source, Diagnostics& diagnostics);

}  // namespace uckpt::ucl
