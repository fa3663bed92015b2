// What one open HDF5 object says about itself. Runs in the child. Included by .cc files of this folder only.
#pragma once

#include <optional>
#include <string>

#include "lib/formats/hdf5/handle.h"
#include "lib/formats/hdf5/survey.h"

namespace uckpt::hdf5 {

// Everything of the entry but its path. What cannot be read becomes Kind::kOther with a note; throws only
// where the library itself fails.
Entry describe_dataset(hid_t dataset, bool with_attributes);

// Attributes of the kinds that we write; nothing if there is none of that name or it is of another kind, too
// long (64 KiB) or unreadable.
std::optional<std::string> text_attribute(hid_t object, const char* name);
std::optional<Shape> integer_attribute(hid_t object, const char* name);

}  // namespace uckpt::hdf5
