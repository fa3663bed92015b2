// The small JSON files that Hugging Face models carry beside their weights.
#pragma once

#include "lib/formats/hugging_face/model_folder.h"
#include "lib/tensor/catalog.h"

namespace uckpt::hugging_face {

inline constexpr std::string_view kConfigName = "config.json",
                                  kGenerationConfigName = "generation_config.json";

// Adds `config.json` and `generation_config.json`, where they are there, as objects, and what the model says
// of itself as facts, settings and arguments. One that is no valid JSON is kept as bytes, with a warning.
void add_model_config(const ModelFolder& folder, Catalog& catalog);

// What was said of a `config.json` that could not be read; empty where there is none.
std::string why_config_is_unread(const Catalog& catalog);

}  // namespace uckpt::hugging_face
