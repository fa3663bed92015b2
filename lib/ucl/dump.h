// The whole tree as text, without places and comments: to compare two trees, and to look at one.
#pragma once

#include <string>

#include "lib/ucl/tree.h"

namespace uckpt::ucl {

std::string dump(const Program& program);
std::string dump(const Shape& shape);
std::string dump(const Expr& expr);

}  // namespace uckpt::ucl
