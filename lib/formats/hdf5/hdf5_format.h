// HDF5 files: our consolidated file, and foreign ones as far as they hold plain tensors.
#pragma once
#include "lib/formats/format.h"
namespace uckpt::hdf5 {
bool recognises(const Target& target);
Catalog read(const Target& target, const OpenOptions& options);
}  // namespace uckpt::hdf5
