// What is wrong with a program, by its text alone: no checkpoint, no sizes.
#pragma once

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::ucl {

// Names and where they may be used, axes, captures, hidden rules, and the proof that each map rule is a
// bijection. Everything found goes to `diagnostics`. Of an incomplete program only what holds whatever is
// missing is said.
void check(const Spec& spec, Diagnostics& diagnostics);

}  // namespace uckpt::ucl
