// The settings of a model as JSON: `config.json`, and what the consolidated file keeps of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "lib/tensor/model_settings.h"

namespace uckpt {

// The settings in one JSON object; nothing if the text is no object. Whole numbers beyond 64 bits, null and
// lists of anything but texts are left out. The text must have passed `parse_strict_json`, which bounds its
// depth.
ModelSettings settings_from_json(std::string_view text);

// One object a line for people, keys sorted; a dot in a key opens an object within. What is not UTF-8 is
// replaced, numbers that JSON has not (infinity) are left out.
std::string config_json(const ModelSettings& settings);

// Settings and arguments (lib/tensor/catalog.h) in one text, flat, and back. `settings_and_arguments_from`
// takes a stranger's text: throws refused `json.…` and `limit.depth`.
using Arguments = std::map<std::string, int64_t, std::less<>>;
std::string settings_and_arguments(const ModelSettings& settings, const Arguments& arguments);
void settings_and_arguments_from(std::string_view text, ModelSettings& settings, Arguments& arguments);

// Whole numbers and truths (0, 1) among the settings, as arguments; those that are there stay.
void add_arguments(const ModelSettings& settings, Arguments& arguments);

}  // namespace uckpt
