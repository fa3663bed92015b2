// Where a pickle is being read, for messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "lib/base/error.h"
#include "lib/pickle/opcodes.h"

namespace uckpt::pickle {

// The opcode at work.
struct Place {
  Op op{};
  size_t at = 0;
  Error error(std::string code, std::string_view what) const;
};

}  // namespace uckpt::pickle
