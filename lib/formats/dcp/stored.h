// What a PyTorch distributed checkpoint says it holds, before any item is opened: tensors in chunks, and
// other objects as torch.save bytes.
//
// Facts: read off folders by torch 2.13 (FSDP1, FSDP2, HSDP, TP x FSDP2, both serializations) and by
// Megatron-core 0.15 and 0.16.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::dcp {

// The bytes of one item in a data file. A torch.save item fills its range; all tensors of a safetensors image
// begin where the image begins, and `length` counts the tensor's own bytes.
struct ItemRange {
  uint32_t file = 0;  // index into Stored::files
  int64_t offset = 0, length = 0;
};

// A box of a tensor, in elements, and the item that holds it.
struct Chunk {
  Shape offsets, sizes;
  ItemRange item;
  std::string transforms;  // "zstd": not empty if the item's bytes are encoded
};

struct StoredTensor {
  std::string key;
  DType dtype{};
  Shape shape;
  std::string refusal;          // why it can be listed and not converted: a type or layout that is not read
  std::vector<Chunk> chunks;    // none of them empty; inside the shape
  std::vector<Chunk> replicas;  // what further ranks saved of the same boxes, each for itself
  size_t empty_chunks = 0;      // of ranks that hold nothing of it

  // Chunks and replicas in turn.
  size_t item_count() const { return chunks.size() + replicas.size(); }
  const Chunk& item(size_t i) const { return i < chunks.size() ? chunks[i] : replicas[i - chunks.size()]; }
};

struct StoredBytes {
  std::string key;
  ItemRange item;
  std::string transforms;
  std::optional<uint32_t> same_key_as = {};  // the item of the first rank, where a further one saved it too
};

// One step into the state dict: a dict's key, or a list's index.
struct KeyPart {
  std::string text;
  bool is_index = false;
};
using KeyPath = std::vector<KeyPart>;

// An item that nothing is read from: that of an empty chunk. A file without it was cut all the same.
struct EmptyItem {
  std::string key;
  ItemRange item;
};

struct Stored {
  std::vector<std::string> files;  // relative paths, as the checkpoint has them
  std::vector<StoredTensor> tensors;
  std::vector<StoredBytes> bytes;
  std::vector<EmptyItem> empties;
  std::map<std::string, KeyPath, std::less<>> paths;  // by key; empty if the save kept none
};

}  // namespace uckpt::dcp
