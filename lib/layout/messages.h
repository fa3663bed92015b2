// What the messages of this room have in common.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/text.h"

namespace uckpt::layout {

inline constexpr size_t kMostMessages = 200;  // after which no more tensors are looked at
inline constexpr size_t kMostNames = 5;       // listed in one message

inline std::string ticked(std::string_view name) { return cat("`", escape(name, 100), "`"); }

inline std::string quoted_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMostNames; ++i)
    out += cat(i ? ", `" : "`", escape(names[i], 80), "`");
  return names.size() > kMostNames ? out + ", …" : out;
}

}  // namespace uckpt::layout
