// Plain torch.save files as checkpoints: every tensor reachable in the tree under its dotted path.
#pragma once
#include "lib/formats/format.h"
namespace uckpt::torch {
bool recognises(const Target& target);
Catalog read(const Target& target, const OpenOptions& options);
}  // namespace uckpt::torch
