// safetensors files, and folders with `model.safetensors.index.json`.
#pragma once
#include "lib/formats/format.h"
namespace uckpt::safetensors {
bool recognises(const Target& target);
Catalog read(const Target& target, const OpenOptions& options);
}  // namespace uckpt::safetensors
