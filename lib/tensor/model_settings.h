// What a training run or a model says about itself, flat: Megatron's `args`, Hugging Face's `config.json`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace uckpt {

// Keys without a value (None, null) are absent. Texts of a list are one value; other items have keys of their
// own (setting_lists.h), as a dict's entries have: its key, a dot, theirs ("rope_parameters.rope_theta").
using ModelSetting = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;
using ModelSettings = std::map<std::string, ModelSetting, std::less<>>;

}  // namespace uckpt
