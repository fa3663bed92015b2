// Numbers as the frameworks have them in the names of files: "07", "00012".
#pragma once

#include <cstdint>
#include <string>

namespace uckpt {

inline std::string zero_padded(int64_t number, size_t width) {
  const std::string text = std::to_string(number);
  return text.size() < width ? std::string(width - text.size(), '0') + text : text;
}

}  // namespace uckpt
