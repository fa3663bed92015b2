// The small files of configuration that are written beside a model's weights.
#pragma once

#include <cstdint>
#include <map>

#include "lib/formats/writer.h"

namespace uckpt::hugging_face {

// Is it one of those files?
bool is_config(const Object& object);

// Adds `config.json` and `generation_config.json` as the input has them, with the type of the weights where
// another one is written; or, where maps renamed the tensors and know the settings of the new names, a
// `config.json` made of those. `bytes`: of the weights, by type.
void add_config(const Catalog& catalog, const WriteRequest& request, const std::map<DType, int64_t>& bytes,
                TargetLayout& layout);

void add_text_file(std::string name, const std::string& text, TargetLayout& layout);

}  // namespace uckpt::hugging_face
