// What a pickled tensor says of itself in the tree: no file is asked, and its storage need not be there.
#pragma once

#include <optional>
#include <string>

#include "lib/pickle/value.h"

namespace uckpt::torch {

bool is_tensor_call(const pickle::Value& value);
// Nothing for what is no tensor, or one whose call is not as torch writes it.
std::optional<Shape> shape_of_call(const pickle::Value& value);
// The key of the storage that it is a view into; "" where it has none.
std::string storage_key_of(const pickle::Value& tensor);

}  // namespace uckpt::torch
