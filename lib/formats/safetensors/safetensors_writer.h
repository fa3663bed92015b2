// safetensors files, as the reference library and transformers write them: one file, or a folder of shards
// with `model.safetensors.index.json`.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::safetensors {

// A folder gets the `config.json` and `generation_config.json` that the input has, or, where maps renamed the
// tensors and know the settings of the new names, a `config.json` made of those.
//
// Tied names are written once, under the first one; the others stand in the header's metadata as
// `alias: name`, where safetensors' `load_model` looks for them. Refuses (`safetensors.dtype`) types that the
// format has no name for, and headers above its limit of 100 MB (`safetensors.header`).
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

// Throws `safetensors.name` for the one name that no tensor of a safetensors file can have.
void refuse_metadata_name(const Catalog& catalog, const Tensor& tensor, std::string_view name);

}  // namespace uckpt::safetensors
