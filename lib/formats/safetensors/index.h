// `model.safetensors.index.json`: which tensor lies in which file of a folder.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/input.h"

namespace uckpt::safetensors {

inline constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

struct Index {
  std::map<std::string, std::string, std::less<>> shard_of;  // tensor name -> file name, a single path part
  std::vector<std::string> shards() const;                   // the files named, sorted naturally
};

// The sizes under `metadata` are hearsay and ignored. Throws refused for anything but a map of plain names.
Index read_index(const ByteSource& file);

}  // namespace uckpt::safetensors
