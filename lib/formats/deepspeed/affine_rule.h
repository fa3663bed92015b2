// An affine map that is nothing but shares of blocks, recognised as a shape expression.
#pragma once

#include <optional>
#include <string>

#include "lib/formats/deepspeed/universal_info.h"

namespace uckpt::deepspeed {

// The body of a UCL rule; nothing for a map that no shape expression says.
std::optional<std::string> body_of(const AffineMap& map, int64_t tp);

// The same map box by box. Throws refused `deepspeed.affine_map` where it leaves the tensor, or scales its
// parts differently.
Scattered scattered_by(const AffineMap& map, int64_t tp);

}  // namespace uckpt::deepspeed
