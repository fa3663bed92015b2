// Words of the language that are no keywords.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace uckpt::ucl {

// The names of element types, as `dtype` takes them.
std::span<const std::string> dtype_names();
// The name that is meant by another framework's (`bfloat16`), or an empty one.
std::string_view dtype_meant_by(std::string_view foreign);

}  // namespace uckpt::ucl
