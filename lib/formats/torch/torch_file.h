// One torch.save file, opened without running anything: zip archive or the legacy stream before torch 1.6.
// How torch writes these files was read off files by torch 2.13.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/io/input.h"
#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"

namespace uckpt::torch {

// A tensor as the pickle describes it, checked against its storage: every element lies inside the record.
struct TensorInfo {
  DType dtype{};
  Shape shape, stride;          // elements; strides >= 0
  int64_t offset = 0;           // byte offset in the file of element 0
  uint32_t record = kNoRecord;  // index into TorchFile::records()
  uint8_t flags = kPlain;       // PieceFlags
  std::string storage_key;      // tensors with the same key share memory
  int64_t storage_offset = 0;   // in elements
  bool is_parameter = false;
  std::string refusal;  // not empty: cannot be read (sparse, quantised, meta, unknown class), and why
  int64_t numel() const { return numel_of(shape); }
  bool contiguous() const;  // row-major, back to back
};

struct FileRecord {  // a zip member, or a storage of a legacy file (then without checksum)
  std::string name;
  int64_t offset, size;
  std::optional<uint32_t> crc;
};

class TorchFile {
 public:
  // Reads the directory and the pickle (kilobytes), no tensor data. Throws Error for what is malformed.
  static std::unique_ptr<TorchFile> open(std::shared_ptr<ByteSource> source,
                                         const pickle::Limits& limits = {});
  ~TorchFile();

  pickle::Value root() const;
  // The tensor that `value` stands for, if it is one (unwrapping parameters and attribute wrappers). A node
  // that only looks like one, or hides a storage inside an unknown class, comes back with `refusal` set.
  std::optional<TensorInfo> tensor(const pickle::Value& value) const;
  // numpy arrays and scalars inside the pickle: values as bytes. Nothing if `value` is neither.
  struct Inline {
    DType dtype;
    Shape shape;
    Bytes bytes;
    bool is_scalar;
  };
  std::optional<Inline> numpy(const pickle::Value& value) const;

  const std::vector<FileRecord>& records() const;
  FileRecord pickle_record() const;  // where the object pickle lies
  const std::map<std::string, GlobalClass>& globals() const;
  bool is_legacy() const;
  // Set if the file may be inspected but not converted: a dangerous call, TorchScript, a cycle….
  const std::optional<Error>& refusal() const;
  // The same, unless it is no more than a cycle: tensors can be taken from such a file, and its pickle be
  // copied; there is but no JSON view of it.
  std::optional<Error> refusal_but_cycle() const;

  // A JSON view of the whole tree (or of `value`). Tensors as {"__tensor__": dtype, "shape": […]}, unknown
  // classes as {"__class__": …}, bytes as {"__bytes__": hex}, big integers as integer literals, non-finite
  // numbers as strings. Throws `limit.json_bytes` if shared parts would make it explode, `pickle.cycle` on a
  // cycle.
  std::string json() const;
  std::string json(const pickle::Value& value) const;

  // The same tree for people: at most `max_lines` lines.
  std::string tree(size_t max_lines = 1000) const;

  // Registers the file and those of its records that have a checksum with the catalog; `records` tells each
  // record's number there, or kNoRecord.
  struct Registered {
    FileId file;
    std::vector<uint32_t> records;
    uint32_t record_of(const TensorInfo& info) const {
      return info.record < records.size() ? records[info.record] : kNoRecord;
    }
  };
  Registered register_with(Catalog& catalog, std::shared_ptr<ByteSource> file) const;

 private:
  struct Impl;
  explicit TorchFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Does it begin like a torch.save file (zip, legacy stream, any pickle, or the tar of the first versions)?
// `head` should have 512 bytes if the file has them.
bool looks_like_torch(ByteSpan head);
bool is_tar(ByteSpan head);

}  // namespace uckpt::torch
