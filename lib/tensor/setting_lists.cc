#include "lib/tensor/setting_lists.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt {

std::string item_key(std::string_view list, size_t place) { return cat(list, "[", place, "]"); }

std::optional<std::string_view> list_of_item(std::string_view key) {
  const size_t bracket = key.rfind('[');
  if (bracket == std::string_view::npos || bracket == 0 || !key.ends_with(']')) return std::nullopt;
  const std::string_view digits = key.substr(bracket + 1, key.size() - bracket - 2);
  const bool is_number = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                        [](char c) { return c >= '0' && c <= '9'; });
  return is_number ? std::optional(key.substr(0, bracket)) : std::nullopt;
}

std::vector<ModelSetting> list_items(const ModelSettings& settings, std::string_view list) {
  std::vector<ModelSetting> out;
  for (auto at = settings.find(item_key(list, 0)); at != settings.end();
       at = settings.find(item_key(list, out.size())))
    out.push_back(at->second);
  return out;
}

}  // namespace uckpt
