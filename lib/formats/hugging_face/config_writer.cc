#include "lib/formats/hugging_face/config_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/base/text.h"
#include "lib/formats/hugging_face/companions.h"
#include "lib/formats/hugging_face/model_config.h"
#include "lib/formats/settings_json.h"

namespace uckpt::hugging_face {
namespace {

// What transformers calls the types that a model is loaded as.
std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "float64";
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    default:
      return {};
  }
}

// The floating type that most bytes are of.
std::string_view main_type(const std::map<DType, int64_t>& bytes_of_types) {
  std::map<std::string_view, int64_t> bytes;
  for (const auto& [dtype, count] : bytes_of_types) bytes[torch_name(dtype)] += count;
  bytes.erase("");
  const auto most = std::ranges::max_element(bytes, {}, [](const auto& b) { return b.second; });
  return most == bytes.end() ? std::string_view() : most->first;
}

bool is_config(const Object& o) { return o.origin == kConfigName || o.origin == kGenerationConfigName; }

// The input's own files, with the type of the weights where another one is written.
void add_own_configs(const Catalog& catalog, const WriteRequest& request, std::string_view type,
                     TargetLayout& layout) {
  const bool cast = std::ranges::any_of(request.dtypes, [](const auto& d) { return d.has_value(); });
  for (const Object& o : catalog.objects) {
    if (!is_config(o) || o.json.empty() || o.json == "null") continue;
    std::string text = o.json;
    if (auto json = nlohmann::ordered_json::parse(text); cast && json.is_object() && !type.empty()) {
      for (const char* key : {"torch_dtype", "dtype"})
        if (json.contains(key)) json[key] = type;
      text = json.dump(2) + "\n";
    }
    add_text_file(layout, o.origin, text);
  }
}

// One made of the settings that maps gave with the new names. Those without a `model_type` are not of Hugging
// Face.
void add_made_config(const Catalog& catalog, std::string_view type, TargetLayout& layout) {
  if (!catalog.settings.contains("model_type")) return;
  if (!catalog.settings_lack.empty()) {
    std::string keys;
    for (const std::string& key : catalog.settings_lack) keys += cat(keys.empty() ? "`" : ", `", key, "`");
    layout.notes.push_back(cat("no ", kConfigName, " is written, since nothing tells ", keys));
    return;
  }
  ModelSettings settings = catalog.settings;
  settings.erase("dtype");
  if (!type.empty()) settings.insert_or_assign("torch_dtype", std::string(type));
  add_text_file(layout, std::string(kConfigName), config_json(settings));
}

void add_config(const Catalog& catalog, const WriteRequest& request, std::string_view type,
                TargetLayout& layout) {
  if (catalog.settings_are == SettingsAre::kTranslated) return add_made_config(catalog, type, layout);
  if (catalog.settings_are == SettingsAre::kOfOldNames) return;
  const size_t before = layout.files.size();
  add_own_configs(catalog, request, type, layout);
  if (layout.files.size() == before) add_made_config(catalog, type, layout);
}

}  // namespace

void tell_lost_objects(const Catalog& catalog, bool keeps_configs, std::vector<std::string>& notes) {
  const bool keeps_own = keeps_configs && catalog.settings_are == SettingsAre::kAsRead;
  const auto is_kept = [&](const Object& o) {
    return (keeps_own && is_config(o)) || (keeps_configs && is_companion(o.origin));
  };
  if (!std::ranges::all_of(catalog.objects, is_kept))
    notes.push_back("left out, since safetensors files hold tensors alone: the state that is no tensor");
}

void add_model_files(const Catalog& catalog, const WriteRequest& request,
                     const std::map<DType, int64_t>& bytes, TargetLayout& layout) {
  add_config(catalog, request, main_type(bytes), layout);
  lay_out_companions(catalog, request, layout);
}

}  // namespace uckpt::hugging_face
