#include "lib/formats/settings_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/strict_json.h"
#include "lib/tensor/setting_lists.h"

namespace uckpt {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 8;
constexpr char kSettings[] = "settings", kArguments[] = "arguments";

bool is_list_of_texts(const Json& value) {
  for (const Json& item : value)
    if (!item.is_string()) return false;
  return value.is_array();
}

std::optional<ModelSetting> number_or_truth(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return std::nullopt;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) return value.get<double>();
  return std::nullopt;
}

// Within what the strict parser let through, so the depth is bounded.
void flatten(const Json& object, const std::string& prefix, ModelSettings& out) {
  for (const auto& [name, value] : object.items()) {
    const std::string key = prefix + name;
    if (value.is_object()) {
      flatten(value, key + ".", out);
    } else if (value.is_string()) {
      out.insert_or_assign(key, value.get<std::string>());
    } else if (is_list_of_texts(value)) {
      out.insert_or_assign(key, value.get<std::vector<std::string>>());
    } else if (value.is_array()) {
      for (size_t i = 0; i < value.size(); ++i)
        if (auto item = number_or_truth(value[i])) out.insert_or_assign(item_key(key, i), std::move(*item));
    } else if (auto setting = number_or_truth(value)) {
      out.insert_or_assign(key, std::move(*setting));
    }
  }
}

bool has_value(const ModelSetting& setting) {
  const auto* real = std::get_if<double>(&setting);
  return !real || std::isfinite(*real);
}

Json json_of(const ModelSetting& setting) {
  return std::visit([](const auto& value) { return Json(value); }, setting);
}

// The object that a dotted key leads to, and what is left of the key; the key whole where something else
// stands in the way.
std::pair<Json*, std::string> place_of(Json& root, const std::string& key) {
  Json* at = &root;
  size_t begin = 0;
  for (size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1) {
    Json& next = (*at)[key.substr(begin, dot - begin)];
    if (!next.is_null() && !next.is_object()) return {&root, key};
    if (next.is_null()) next = Json::object();
    at = &next;
  }
  return {at, key.substr(begin)};
}

std::string dumped(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

ModelSettings settings_from_json(std::string_view text) {
  ModelSettings out;
  if (const Json json = Json::parse(text); json.is_object()) flatten(json, "", out);
  return out;
}

std::string config_json(const ModelSettings& settings) {
  Json root = Json::object();
  for (const auto& [key, value] : settings) {
    const auto list = list_of_item(key);
    if (!has_value(value) || (list && key != item_key(*list, 0))) continue;
    const auto [object, name] = place_of(root, std::string(list.value_or(key)));
    if (!list) {
      (*object)[name] = json_of(value);
      continue;
    }
    Json& items = (*object)[name] = Json::array();
    for (const ModelSetting& item : list_items(settings, *list)) items.push_back(json_of(item));
  }
  return dumped(root, 2) + "\n";
}

std::string settings_and_arguments(const ModelSettings& settings, const Arguments& arguments) {
  Json root = {{kArguments, Json::object()}, {kSettings, Json::object()}};
  for (const auto& [key, value] : settings)
    if (has_value(value)) root[kSettings][key] = json_of(value);
  for (const auto& [key, value] : arguments) root[kArguments][key] = value;
  return dumped(root, 2) + "\n";
}

void settings_and_arguments_from(std::string_view text, ModelSettings& settings, Arguments& arguments) {
  check_strict_json(text, kMaxDepth);
  const Json root = Json::parse(text);
  if (!root.is_object()) throw refused("json.syntax", "expected an object of settings, found something else");
  if (const auto found = root.find(kSettings); found != root.end() && found->is_object())
    flatten(*found, "", settings);
  ModelSettings whole;
  if (const auto found = root.find(kArguments); found != root.end() && found->is_object())
    flatten(*found, "", whole);
  add_arguments(whole, arguments);
}

void add_arguments(const ModelSettings& settings, Arguments& arguments) {
  for (const auto& [key, value] : settings) {
    if (const auto* truth = std::get_if<bool>(&value)) arguments.emplace(key, *truth);
    if (const auto* whole = std::get_if<int64_t>(&value)) arguments.emplace(key, *whole);
  }
}

}  // namespace uckpt
