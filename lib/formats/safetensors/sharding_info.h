// What torch's HuggingFaceStorageWriter says in a file's metadata of the boxes that its tensors are.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "lib/formats/safetensors/header.h"
#include "lib/tensor/catalog.h"

namespace uckpt::safetensors {

inline constexpr std::string_view kShardingKey = "DCP_SHARDING_INFO";

// Where the box of each tensor begins, by name; empty where nothing is said. Throws `dcp.sharding_info`.
std::unordered_map<std::string, Shape> saved_offsets(const Header& header);

// Does it say that each tensor of the file begins at its own beginning? Never throws.
bool are_boxes_at_zero(const Header& header);

}  // namespace uckpt::safetensors
