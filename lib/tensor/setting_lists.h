// Lists of numbers and truths among settings: each item stands under the list's key and its place.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/model_settings.h"

namespace uckpt {

std::string item_key(std::string_view list, size_t place);  // "window_size[0]"
// The list that such a key is of; nothing for other keys.
std::optional<std::string_view> list_of_item(std::string_view key);
// The items of a list, in order, up to the first that is not there.
std::vector<ModelSetting> list_items(const ModelSettings& settings, std::string_view list);

}  // namespace uckpt
