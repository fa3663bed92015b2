// Reads a checkpoint's catalog and puts its tensors together in the plainest way there is.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/deepspeed_format.h"
#include "tests/unit/formats/torch_support.h"

namespace deepspeed_test {

using namespace uckpt;
namespace fs = std::filesystem;

inline std::string fixture(const std::string& name) { return torch_test::data("deepspeed/" + name); }

inline Catalog read_checkpoint(const std::string& path, const OpenOptions& options = {}) {
  return deepspeed::read(open_target(path), options);
}

// A copy of a fixture's checkpoint that a test may damage; removed at the end.
class Scratch {
 public:
  explicit Scratch(const std::string& name)
      : root_(fs::temp_directory_path() / cat("uckpt_ds_", ::getpid(), "_", next())) {
    fs::create_directories(root_);
    fs::copy(fixture(name) + "/ckpt", root_, fs::copy_options::recursive);
  }
  ~Scratch() { fs::remove_all(root_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path() const { return root_.string(); }
  fs::path file(const std::string& name) const { return root_ / name; }
  void remove(const std::string& name) const { REQUIRE(fs::remove(root_ / name)); }
  void copy(const std::string& from, const std::string& to) const { fs::copy_file(root_ / from, root_ / to); }
  void truncate(const std::string& name) const {
    fs::resize_file(root_ / name, fs::file_size(root_ / name) / 2);
  }

 private:
  static int next() {
    static int n = 0;
    return n++;
  }
  fs::path root_;
};

inline const Tensor* find(const Catalog& catalog, const std::string& path) {
  for (const Tensor& t : catalog.tensors) {
    if (t.path() == path) return &t;
  }
  return nullptr;
}

// Every file of a catalog in memory: fixtures are small.
class Assembler {
 public:
  explicit Assembler(const Catalog& catalog) : catalog_(catalog) {
    for (const auto& f : catalog.files) files_.push_back(f->read_range(0, f->size()));
  }

  // The bytes of a tensor; fails unless the pieces write every element exactly once.
  Bytes bytes(const Tensor& named) const {
    const Tensor& t = named.alias ? catalog_.tensors[*named.alias] : named;
    return bytes(t.pieces, t.dtype, numel_of(t.shape), named.path());
  }

  Bytes bytes(PieceRange range, DType dtype, int64_t numel, const std::string& name) const {
    const auto item = static_cast<size_t>(item_size(dtype));
    Bytes out(static_cast<size_t>(numel) * item);
    std::vector<int> written(static_cast<size_t>(numel), 0);
    for (const Piece& p : catalog_.pieces_of(range)) add(p, item, out, written, name);
    for (size_t i = 0; i < written.size(); ++i) REQUIRE_MESSAGE(written[i] == 1, name, " element ", i);
    return out;
  }

 private:
  void add(const Piece& p, size_t item, Bytes& out, std::vector<int>& written,
           const std::string& name) const {
    const auto axes = catalog_.axes_of(p);
    const Bytes& source = p.file == kLiteral ? catalog_.literals : files_.at(p.file);
    if (p.record != kNoRecord) check_record(p, name);
    std::vector<int64_t> index(axes.size(), 0);
    for (;;) {
      int64_t to = 0, from = 0;
      for (size_t d = 0; d < axes.size(); ++d) {
        to = to * axes[d].size + axes[d].start + index[d];
        from += index[d] * axes[d].stride;
      }
      const auto at = static_cast<size_t>(p.offset + from * static_cast<int64_t>(item));
      REQUIRE_MESSAGE(static_cast<size_t>(to) < written.size(), name);
      REQUIRE_MESSAGE(at + item <= source.size(), name);
      ++written[static_cast<size_t>(to)];
      std::copy_n(source.begin() + static_cast<ptrdiff_t>(at), item,
                  out.begin() + to * static_cast<int64_t>(item));
      size_t d = axes.size();
      while (d > 0 && ++index[d - 1] == axes[d - 1].extent) index[--d] = 0;
      if (d == 0) return;
    }
  }

  void check_record(const Piece& p, const std::string& name) const {
    const Record& r = catalog_.records.at(p.record);
    CHECK_MESSAGE(r.file == p.file, name);
    CHECK_MESSAGE(p.offset >= r.offset, name);
    CHECK_MESSAGE(p.offset < r.offset + r.size, name);
  }

  const Catalog& catalog_;
  std::vector<Bytes> files_;
};

inline double number(const Bytes& bytes, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return load_le<float>(bytes.data());
    case DType::kF64:
      return load_le<double>(bytes.data());
    case DType::kI64:
      return static_cast<double>(load_le<int64_t>(bytes.data()));
    default:
      return std::nan("");
  }
}

// Where a copy of `dtype` lies, its bytes must be the tensor rounded to it: nearest, ties to even.
inline uint16_t rounded_bf16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace deepspeed_test
