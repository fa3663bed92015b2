// One input file while the catalog is built, and the small things read out of it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/formats/torch/torch_file.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

// A run of elements back to back in a file. `record` is a number of the Source it belongs to.
struct Place {
  int64_t offset = 0;  // bytes
  int64_t numel = 0;
  uint32_t record = kNoRecord;
  DType dtype{};
  uint8_t flags = kPlain;
};

// A value read at open: a step, a count. At most one element.
struct Scalar {
  DType dtype{};
  Shape shape;  // [] or [1]
  std::array<uint8_t, 16> bytes{};
  uint8_t size = 0;
  ByteSpan span() const { return {bytes.data(), size}; }
  bool operator==(const Scalar& o) const = default;
  std::string text() const;  // for messages
};

// Python's numbers: int is i64, float is f64, bool is bool. Nothing for anything else.
std::optional<Scalar> scalar_of(const pickle::Value& value);

// Remembers which records of a file the kept tensors lie in, so that a tree can be freed and only those
// records enter the catalog; the file itself enters it with the first piece.
class Source {
 public:
  Source() = default;
  Source(std::string name, std::shared_ptr<ByteSource> bytes)
      : name_(std::move(name)), bytes_(std::move(bytes)) {}
  const std::string& name() const { return name_; }  // inside the tag folder
  const std::shared_ptr<ByteSource>& bytes() const { return bytes_; }

  // Turns `info.record` from a number of the torch file into one of this source.
  void keep(const torch::TorchFile& file, torch::TensorInfo& info);
  // A whole tensor that lies back to back; refuses others (`deepspeed.malformed`).
  Place place_of(const torch::TorchFile& file, torch::TensorInfo info);
  // The value of a one-element tensor; its record's checksum is verified if the record is small.
  Scalar read_scalar(const torch::TorchFile& file, const torch::TensorInfo& info) const;

  // A number that is equal for two records only if their bytes are (checksum and size), if the file has one.
  std::optional<uint64_t> fingerprint(uint32_t record) const;

  FileId file_id(Catalog& catalog);
  // The catalog's number for a record of this source, after file_id().
  uint32_t record_id(uint32_t record) const { return record == kNoRecord ? kNoRecord : ids_[record]; }

 private:
  std::string name_;
  std::shared_ptr<ByteSource> bytes_;
  std::vector<torch::FileRecord> records_;
  std::unordered_map<uint32_t, uint32_t> own_;  // number in the torch file -> index into records_
  std::vector<uint32_t> ids_;                   // in the catalog
  std::optional<FileId> id_;
};

}  // namespace uckpt::deepspeed
