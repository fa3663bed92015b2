// What the bare captures of a program are: `{x}` is a number, or what `{x:…}` on the other side of its map
// is.
#pragma once

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// Gives every bare capture of a map rule, and of the name behind `tied to`, the kind that its name has in the
// rule; two that differ are reported.
void resolve_captures(const Source& source, Program& program, Diagnostics& diagnostics);

}  // namespace uckpt::ucl
