// What a training run or a model says about itself, flat: Megatron's `args`, Hugging Face's `config.json`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

namespace uckpt {

// Keys without a value (None, null) are absent; lists, dicts and objects are not kept.
using ModelSetting = std::variant<bool, int64_t, double, std::string>;
using ModelSettings = std::map<std::string, ModelSetting, std::less<>>;

}  // namespace uckpt
