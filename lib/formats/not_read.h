// Checkpoints that are recognised but not read: each is named for what it is, with a way out where there is
// one.
#pragma once

#include <optional>

#include "lib/base/error.h"
#include "lib/formats/format.h"

namespace uckpt {

// Asked before the readers, of files only: what is no checkpoint at all, which a reader would refuse with a
// less helpful word.
std::optional<Error> not_a_checkpoint_file(const Target& target);

// Asked after the readers have passed: `format.unsupported` for a known kind, else `format.unknown`.
Error not_read(const Target& target);

}  // namespace uckpt
