// The child's side: walks an HDF5 file with the library and tells what it sees. Included by .cc files of this
// folder only.
#pragma once

#include <functional>
#include <string>

#include "lib/formats/hdf5/handle.h"
#include "lib/formats/hdf5/survey.h"

namespace uckpt::hdf5 {

Handle open_for_reading(const std::string& path);

// Root attributes, if the file is one of ours; no entries yet. Foreign attributes never fail.
Survey read_root(hid_t file);

// Calls `tell` for every dataset and every link that is not followed. Hard links only, each object once by
// its address, so cycles end and diamonds do not multiply. Throws trouble for what the library cannot read.
void explore(hid_t file, bool with_attributes, const std::function<void(const Entry&)>& tell);

}  // namespace uckpt::hdf5
