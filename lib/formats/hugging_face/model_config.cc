#include "lib/formats/hugging_face/model_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "lib/base/text.h"
#include "lib/formats/settings_json.h"
#include "lib/formats/strict_json.h"

namespace uckpt::hugging_face {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int kMaxConfigDepth = 100;
constexpr std::string_view kUnread = " is kept as bytes only: ";

std::string fact_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string out;
  for (const Json& item : value) out += cat(out.empty() ? "" : ", ", fact_text(item));
  return out;
}

void add_facts(const std::string& text, Catalog& catalog) {
  static constexpr std::pair<std::string_view, std::string_view> kFields[] = {
      {"model_type", "model type"},
      {"architectures", "architecture"},
      {"num_hidden_layers", "layers"},
      {"hidden_size", "hidden size"},
      {"num_attention_heads", "attention heads"},
      {"num_key_value_heads", "key-value heads"},
      {"vocab_size", "vocabulary"},
      {"tie_word_embeddings", "tied embeddings"},
      {"transformers_version", "transformers"},
  };
  const Json config = Json::parse(text);
  if (!config.is_object()) return;
  for (const auto& [field, label] : kFields) {
    const auto at = config.find(field);
    if (at == config.end() || at->is_object() || at->is_null()) continue;
    catalog.facts.emplace_back(label, fact_text(*at));
  }
}

void add_file(const ModelFolder& folder, const std::string& name, Catalog& catalog) {
  if (!folder.has_file(name)) return;
  const std::shared_ptr<InputFile> file = folder.open(name);
  Object object{.origin = name, .json = "null"};
  try {
    if (file->size() > kMaxConfigBytes) {
      throw refused("safetensors.config",
                    cat("expected at most ", kMaxConfigBytes, " bytes of configuration"));
    }
    const Bytes bytes = file->read_range(0, file->size());
    const std::string text(bytes.begin(), bytes.end());
    check_strict_json(text, kMaxConfigDepth);
    if (name == kConfigName) {
      add_facts(text, catalog);
      catalog.settings = settings_from_json(text);
      add_arguments(catalog.settings, catalog.arguments);
    }
    object.json = text;  // the view is the file itself: no bytes need be kept beside it
  } catch (const Error& e) {
    catalog.warnings.push_back(cat(name, kUnread, e.message()));
    object.file = catalog.add_file(file);
    object.size = file->size();
  }
  catalog.objects.push_back(std::move(object));
}

}  // namespace

void add_model_config(const ModelFolder& folder, Catalog& catalog) {
  add_file(folder, std::string(kConfigName), catalog);
  add_file(folder, std::string(kGenerationConfigName), catalog);
}

std::string why_config_is_unread(const Catalog& catalog) {
  const std::string begin = cat(kConfigName, kUnread);
  const auto at = std::ranges::find_if(catalog.warnings, [&](const auto& w) { return w.starts_with(begin); });
  return at == catalog.warnings.end() ? "" : *at;
}

}  // namespace uckpt::hugging_face
