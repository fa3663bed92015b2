// Rules for an input, as UCL text for a person to read, correct and keep.
#pragma once

#include <string>

#include "lib/formats/format.h"

namespace uckpt {

// From the input's own description; where there is none, from the fragments' shapes, from which of them are
// equal on all ranks, and from the shapes of whole tensors in `like` (a checkpoint with the same names; "":
// none). A comment after each rule says why; what cannot be known is a `?`, which conversions refuse.
std::string infer_rules(const std::string& path, const std::string& like, const OpenOptions& options);

}  // namespace uckpt
