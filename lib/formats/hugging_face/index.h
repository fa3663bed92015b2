// `model.safetensors.index.json`, `pytorch_model.bin.index.json`: which tensor lies in which file of a
// folder.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/input.h"

namespace uckpt::hugging_face {

struct Index {
  std::map<std::string, std::string, std::less<>> shard_of;  // tensor name -> file name, a single path part
  std::optional<uint64_t> total_size;  // bytes of all tensors: hearsay, as other programs do not keep it up
  std::vector<std::string> shards() const;  // the files named, sorted naturally
};

// Throws refused `FORMAT.index` for anything but a map of
// names, `name.escapes` for names that are not plain.
Index read_index(const ByteSource& file, std::string_view format);

}  // namespace uckpt::hugging_face
