// One element for people: `0.1`, `-3`, `true`, `1-2i`, `nan`; of types under a byte the byte: `0x3f`.
#pragma once

#include <cstdint>
#include <string>

#include "lib/tensor/dtype.h"

namespace uckpt {

// With as few digits as tell it from its neighbours, of fp32 for narrower types.
std::string value_text(const uint8_t* element, DType dtype);

}  // namespace uckpt
