// Items of a distributed checkpoint, opened by range: complete torch.save archives back to back, or tensors
// of a safetensors image at the end of a file.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/formats/format.h"
#include "lib/formats/torch/torch_file.h"

namespace uckpt::dcp {

// The data files, opened once each.
class DataFiles {
 public:
  // Throws refused `dcp.missing_files` naming what is not there, and `name.escapes` for a path that leads out
  // of the folder.
  DataFiles(const InputFolder& folder, const Stored& stored);
  const std::shared_ptr<ByteSource>& at(uint32_t file) const { return files_[file]; }
  // Throws refused `dcp.range` unless the item lies inside its file.
  void check_range(const ItemRange& item) const;

 private:
  std::vector<std::shared_ptr<ByteSource>> files_;
};

// What is wrong with an item that can be listed all the same.
struct ItemTrouble {
  std::string refusal;          // why it cannot be converted
  std::optional<Error> danger;  // the archive calls something: nothing of it is converted
};

// What the items of many chunks have in common, kept once.
struct ItemForm {
  Shape stride;  // elements
  uint8_t flags = kPlain;
  std::string record_name = {};  // of the archive's member, for messages
  int64_t record_before = 0;     // bytes of the record before the first element
  int64_t record_size = 0;
  std::shared_ptr<const ItemTrouble> trouble = {};
};

// Where a chunk's elements lie, checked against what `.metadata` says about it. There may be millions of
// them.
struct ItemTensor {
  int64_t offset = 0;                    // bytes in the data file, of the first element
  uint32_t record_crc = 0;               // 0: there is none
  uint32_t number = kNoRecord;           // of the record in the catalog, once it is there
  std::shared_ptr<const ItemForm> form;  // null until it is opened

  bool is_checked() const { return record_crc != 0; }
  int64_t record_offset() const { return offset - form->record_before; }  // in the data file
  const Shape& stride() const { return form->stride; }
  const ItemTrouble* trouble() const { return form ? form->trouble.get() : nullptr; }
};

// Keeps equal forms once. For threads at once.
class ItemForms {
 public:
  std::shared_ptr<const ItemForm> one_of(ItemForm form);

 private:
  using Key = std::tuple<Shape, uint8_t, std::string, int64_t, int64_t>;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<const ItemForm>> forms_;  // of those without trouble
};

struct OpenedChunks {
  std::vector<std::vector<ItemTensor>> items;  // parallel to the tensors and their items
  std::map<std::string, GlobalClass> globals;  // of all of them
};

// Opens the items of all chunks, several at once, after checking the ranges of all items. Throws refused,
// naming file and tensor: `dcp.range`,
// `dcp.shared_bytes` where two items claim the same bytes, `dcp.dtype` and `dcp.shape` where an item is not
// what `.metadata` says, and what the readers of torch.save and safetensors files throw.
OpenedChunks open_chunks(const DataFiles& files, const Stored& stored, const OpenOptions& options);

// One object that is no tensor. `file` is empty for bytes that are no torch.save archive.
struct ItemObject {
  std::shared_ptr<ByteSource> source;  // the item's bytes alone
  std::unique_ptr<torch::TorchFile> file;
};
// Of a checkpoint that went through open_chunks.
ItemObject open_object(const DataFiles& files, const StoredBytes& item, const OpenOptions& options);

}  // namespace uckpt::dcp
