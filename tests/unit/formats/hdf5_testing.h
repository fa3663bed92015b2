// Shared by the HDF5 tests: a scratch folder, opening a file as the command line would, a tensor's bytes.
#pragma once

#include <doctest/doctest.h>
#include <hdf5.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/hdf5_format.h"
#include "lib/formats/hdf5/skeleton.h"

namespace hdf5_testing {

using namespace uckpt;
namespace fs = std::filesystem;

class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "uckpt-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() { fs::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void spill(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline void overwrite(const std::string& path, int64_t offset, ByteSpan bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(offset);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

inline Target target_of(const std::string& path) {
  Target target;
  target.path = path;
  target.file = InputFile::open(path);
  target.head = target.file->read_range(0, std::min<int64_t>(512, target.file->size()));
  return target;
}

inline Catalog open_hdf5(const std::string& path) { return hdf5::read(target_of(path), {}); }

inline const Tensor* find(const Catalog& catalog, std::string_view path) {
  for (const Tensor& tensor : catalog.tensors)
    if (tensor.path() == path) return &tensor;
  return nullptr;
}

inline const Tensor& at(const Catalog& catalog, std::string_view path) {
  const Tensor* tensor = find(catalog, path);
  REQUIRE_MESSAGE(tensor != nullptr, std::string(path));
  return *tensor;
}

// Row-major little-endian bytes.
inline Bytes bytes_of_tensor(const Catalog& catalog, const Tensor& tensor) {
  const Tensor& owner = tensor.alias ? catalog.tensors[*tensor.alias] : tensor;
  Bytes all;
  for (const Piece& piece : catalog.pieces_of(owner.pieces)) {
    const auto axes = catalog.axes_of(piece);
    REQUIRE(axes.size() == 1);
    REQUIRE(axes[0].stride == 1);
    const auto size = uckpt::bytes_of(owner.dtype, axes[0].extent);
    REQUIRE(size.has_value());
    Bytes bytes = catalog.files[piece.file]->read_range(piece.offset, *size);
    if (piece.flags & kByteSwapped) {
      const bool is_complex = info(owner.dtype).kind == DTypeClass::kComplex;
      const auto width = item_size(owner.dtype) / (is_complex ? 2 : 1);
      for (auto p = bytes.begin(); p < bytes.end(); p += width) std::reverse(p, p + width);
    }
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

// Bytes that differ from their neighbours and from tensor to tensor.
inline Bytes pattern(size_t size, unsigned seed) {
  Bytes bytes(size);
  uint32_t x = seed * 2654435761u + 1;
  for (uint8_t& b : bytes) b = static_cast<uint8_t>((x = x * 1664525u + 1013904223u) >> 24);
  return bytes;
}

// The error's code, or "" if `act` does not throw. Only refusals are expected.
template <class Act>
std::string code_of(Act act) {
  try {
    act();
    return "";
  } catch (const Error& error) {
    CHECK_MESSAGE(error.exit_code() == 1, error.line());
    CHECK(!error.message().empty());
    CHECK(error.line().find('\n') == std::string::npos);
    return error.code();
  }
}

}  // namespace hdf5_testing
