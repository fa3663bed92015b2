// The text manifest of a checkpoint: the digest of every logical tensor, whatever the format and the layout.
//
//   # uckpt sum 1
//   crc64:995dc9bbdf1939fa  fp32  [2, 3]  weight/layers.0.bias
//
// A digest is over the tensor's row-major little-endian bytes: CRC-64 (the one of xz, ECMA-182), or SHA-256
// where that was asked for. Lines are sorted by path: state/name, and for a parameter's or buffer's own
// values weight/name, since formats tell different things of what they are (a master, a module weight). Bytes
// of a name that a terminal would not show as they are, and backslashes, stand as \xHH.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "lib/io/input.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// What a manifest calls the chosen tensors of a catalog.
class SumPaths {
 public:
  SumPaths(const Catalog& catalog, std::span<const uint32_t> chosen);
  // A module weight that is stored beside its master is called param/name.
  std::string of(const Tensor& tensor) const;

 private:
  std::unordered_set<std::string> masters_;  // names
};
inline constexpr std::string_view kAnyWeight = "weight";  // the state that stands for all of those

struct TensorSum {
  std::string path;
  DType dtype;
  Shape shape;
  std::string digest;  // "crc64:…", "sha256:…", in lower-case hexadecimal
};

std::string crc64_text(uint64_t crc64);

// Sorts them.
std::string manifest_text(std::vector<TensorSum> sums);
// By its first line; never throws.
bool is_manifest(const std::string& path);
// An answer of `uckpt --json`, which is no manifest; never throws.
bool is_answer_in_json(const std::string& path);
// Throws refused (`manifest.line`) that names the line. What it returns is sorted by path.
std::vector<TensorSum> read_manifest(const ByteSource& file);

}  // namespace uckpt
