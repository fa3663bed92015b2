// Arithmetic over sizes: `heads / groups`, `128*tp`, `min(g, tp)`.
//
// Chains are flat (`a * b / c` is one product of three), so the depth of a tree is the depth of its
// parentheses, which the parser limits; walking by recursion is safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/ucl/span.h"

namespace uckpt::ucl {

struct Operand;

struct Expr {
  enum class Kind : uint8_t {
    kNumber,   // `number`
    kName,     // `name`: a given, a where, a mesh axis, or an axis of the rule
    kSum,      // two or more operands, added or (inverted) subtracted, from left to right
    kProduct,  // two or more operands, multiplied or (inverted) divided, from left to right
    kMin,      // two operands
  };
  Kind kind = Kind::kNumber;
  int64_t number = 0;
  std::string name;
  std::vector<Operand> operands;
  Span span;
};

// One operand of a chain. `inverted`: subtracted in a sum, a divisor in a product; never the first one's.
struct Operand {
  Expr expr;
  bool inverted = false;
};

}  // namespace uckpt::ucl
