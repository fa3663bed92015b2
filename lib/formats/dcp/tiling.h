// Do boxes tile a tensor? By arithmetic on their corners, not by counting elements.
#pragma once

#include "lib/formats/dcp/stored.h"

namespace uckpt::dcp {

// Throws refused `dcp.hole` or `dcp.overlap`, naming an element that is in no chunk or in several;
// `limit.cut_dims` where the chunks are cut along so many dims that telling would take too long. The chunks
// lie inside the shape and are not empty.
void check_tiling(const Shape& shape, const Chunks& chunks);

}  // namespace uckpt::dcp
