// Reads a catalog's tensors in the plainest way there is, to compare with what other readers say.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/torch_file.h"
#include "lib/formats/torch/torch_format.h"
#include "lib/io/input.h"

namespace torch_test {

using namespace uckpt;

inline std::string data(const std::string& name) { return std::string(UCKPT_TEST_DATA) + "/" + name; }

inline Bytes file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream in(path);
  REQUIRE_MESSAGE(in.good(), path);
  return nlohmann::json::parse(in);
}

inline Catalog read_catalog(const std::string& path) {
  Target target;
  target.path = path;
  target.file = InputFile::open(path);
  target.head = target.file->read_range(0, std::min<int64_t>(512, target.file->size()));
  return torch::read(target, {});
}

inline void swap_parts(uint8_t* p, size_t size, bool complex) {
  const size_t part = complex ? size / 2 : size;
  for (size_t at = 0; at < size; at += part) std::reverse(p + at, p + at + part);
}

// Conjugates or negates one little-endian element of floats: sign bits.
inline void flip_signs(uint8_t* p, size_t size, DType dtype, uint8_t flags) {
  const bool complex = info(dtype).kind == DTypeClass::kComplex;
  const size_t part = complex ? size / 2 : size;
  if (flags & kConjugated) p[size - 1] ^= 0x80;
  if (flags & kNegated)
    for (size_t at = part; at <= size; at += part) p[at - 1] ^= 0x80;
}

inline Bytes tensor_bytes(const Catalog& catalog, const Tensor& named) {
  const Tensor& tensor = named.alias ? catalog.tensors[*named.alias] : named;
  const auto item = static_cast<size_t>(item_size(tensor.dtype));
  Bytes out(static_cast<size_t>(uckpt::bytes_of(tensor)));
  if (out.empty()) return out;
  REQUIRE(tensor.pieces.count == 1);
  const Piece& piece = catalog.pieces_of(tensor.pieces)[0];
  const auto axes = catalog.axes_of(piece);
  std::vector<int64_t> index(axes.size(), 0);
  for (size_t to = 0; to < out.size(); to += item) {
    int64_t from = piece.offset;
    for (size_t d = 0; d < axes.size(); ++d) from += index[d] * axes[d].stride * static_cast<int64_t>(item);
    std::span<uint8_t> element(out.data() + to, item);
    if (piece.file == kLiteral)
      std::copy_n(catalog.literals.begin() + from, item, element.begin());
    else
      catalog.files[piece.file]->read_at(from, element);
    if (piece.flags & kByteSwapped)
      swap_parts(element.data(), item, info(tensor.dtype).kind == DTypeClass::kComplex);
    flip_signs(element.data(), item, tensor.dtype, piece.flags);
    for (size_t d = axes.size(); d-- > 0;) {
      if (++index[d] < axes[d].extent) break;
      index[d] = 0;
    }
  }
  return out;
}

struct Expected {
  std::string dtype;
  Shape shape;
  Bytes bytes;
};

inline std::map<std::string, Expected> read_safetensors(const std::string& path) {
  const Bytes all = file_bytes(path);
  const auto header_size = load_le<uint64_t>(all.data());
  const auto header =
      nlohmann::json::parse(all.begin() + 8, all.begin() + 8 + static_cast<ptrdiff_t>(header_size));
  std::map<std::string, Expected> out;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = all.begin() + 8 + static_cast<ptrdiff_t>(header_size);
    const auto offsets = entry["data_offsets"].get<std::vector<ptrdiff_t>>();
    out[name] = {entry["dtype"], entry["shape"].get<Shape>(), Bytes(begin + offsets[0], begin + offsets[1])};
  }
  return out;
}

}  // namespace torch_test
