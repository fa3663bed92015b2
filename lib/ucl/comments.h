// Giving each comment of a source to the node it belongs to.
#pragma once

#include "lib/ucl/tokens.h"
#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// A comment behind something belongs to that; one on a line of its own to what follows it, or to the end of
// its block. One in the midst of a node that is printed on one line goes above that node.
void attach_comments(const Source& source, const Tokens& tokens, Program& program);

}  // namespace uckpt::ucl
