// Files that a Hugging Face model's folder has beside weights and configuration, and that the model is of no
// use without: those of its tokenizer and of what prepares its inputs. They are carried along byte by byte.
#pragma once

#include <string_view>

#include "lib/formats/hugging_face/model_folder.h"
#include "lib/formats/writer.h"
#include "lib/tensor/catalog.h"

namespace uckpt::hugging_face {

// Is it the name of such a file, as transformers writes them?
bool is_companion(std::string_view name);

// Adds those that are there as objects. One of more than 64 MiB is none, and a warning says so.
void add_companions(const ModelFolder& folder, Catalog& catalog);

// Writes the catalog's, each to a file of its own.
void lay_out_companions(const Catalog& catalog, const WriteRequest& request, TargetLayout& layout);

}  // namespace uckpt::hugging_face
