// The header of one safetensors file, held to every rule of the reference reader before it is believed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/io/input.h"
#include "lib/tensor/catalog.h"

namespace uckpt::safetensors {

inline constexpr int64_t kMaxHeaderBytes = 100'000'000;
inline constexpr int kMaxJsonDepth = 8;

// Our key of `__metadata__`: the CRC-64 of each tensor's bytes, 16 hexadecimal digits each, in the order in
// which the tensors lie in the file, a space between them.
inline constexpr std::string_view kDigestKey = "uckpt.crc64";
inline constexpr size_t kDigestDigits = 16;

struct Entry {
  std::string name;
  DType dtype{};
  Shape shape;
  int64_t begin = 0, end = 0;  // bytes, relative to Header::data_at
};

struct Header {
  int64_t data_at = 0;         // byte offset in the file of the tensor bytes
  std::vector<Entry> entries;  // by offset; together they cover the rest of the file exactly
  std::vector<std::pair<std::string, std::string>> metadata;  // of `__metadata__`, in file order
  const std::string* metadata_value(std::string_view key) const;
};

// Reads the length and the header, no tensor bytes. Throws refused for whatever breaks a rule.
Header read_header(const ByteSource& file);

}  // namespace uckpt::safetensors
