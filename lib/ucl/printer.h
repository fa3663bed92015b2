// The one canonical text of a program, as `uckpt fmt` writes it.
#pragma once

#include <string>

#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// Canonical text: parsing it gives an equal tree, printing that gives the same text, and every comment is
// there. Meant for programs that parsed without errors; what was lost in one that did not is lost here too.
std::string print(const Program& program);

}  // namespace uckpt::ucl
