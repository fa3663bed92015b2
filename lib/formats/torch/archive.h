// A torch.save file to be: a zip archive of stored members, laid out but for its tensors' bytes.
//
// As torch 2.13 writes it: `<root>/data.pkl`, the format's small members, `<root>/data/<key>` for each
// storage, `<root>/version`; payloads begin at multiples of 64 bytes. Other than torch's, the local headers
// carry sizes and checksums, so there are no data descriptors; and there is no serialization id, which tells
// two savings of one content apart.
#pragma once

#include <string>
#include <vector>

#include "lib/tensor/target.h"

namespace uckpt::torch {

class Archive {
 public:
  // `root`: the folder of the members, for torch the file's stem.
  explicit Archive(std::string root) : root_(std::move(root)) {}

  // A new storage; tells its key. What no hole fills is zeros.
  std::string add_storage(int64_t bytes);
  // Fills part of the newest storage: the hole's offset counts from the storage's first byte.
  void fill(const Hole& hole);
  // A new storage that is all of one hole.
  std::string add_storage(const Hole& whole);
  // A new storage of bytes that are known now.
  std::string add_storage(Bytes content);

  // Adds the file to the layout, its holes and checksums too. Throws refused `torch.root` for a root that is
  // no plain name.
  void lay_out(std::string name, Bytes pickle, TargetLayout& layout) &&;

 private:
  struct Storage {
    int64_t bytes;
    std::vector<Hole> holes;
    Bytes content = {};  // not empty: all of it
  };
  std::string root_;
  std::vector<Storage> storages_;
};

// The root for a file of this name: its stem.
std::string archive_root(std::string_view file_name);

}  // namespace uckpt::torch
