// The small files of configuration that are written beside a model's weights.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/formats/writer.h"

namespace uckpt::hugging_face {

// Notes that the state which is no tensor is left out, where there is more of it than such files.
// `keeps_configs`: they are written as well.
void tell_lost_objects(const Catalog& catalog, bool keeps_configs, std::vector<std::string>& notes);

// Adds `config.json` and `generation_config.json` as the input has them, with the type of the weights where
// another one is written; or, where maps renamed the tensors and know the settings of the new names, a
// `config.json` made of those; and the files of companions.h. `bytes`: of the weights, by type.
void add_model_files(const Catalog& catalog, const WriteRequest& request,
                     const std::map<DType, int64_t>& bytes, TargetLayout& layout);

}  // namespace uckpt::hugging_face
