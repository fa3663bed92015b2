// The consolidated HDF5 file as an output: see consolidated.h for what it holds.
#pragma once
#include "lib/formats/writer.h"
namespace uckpt::hdf5 {
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);
}  // namespace uckpt::hdf5
