// What a PyTorch distributed checkpoint says it holds, before any item is opened: tensors in chunks, and
// other objects as torch.save bytes.
//
// Facts: read off folders by torch 2.13 (FSDP1, FSDP2, HSDP, TP x FSDP2, both serializations) and by
// Megatron-core 0.15 and 0.16.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
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

// Boxes of one tensor, in elements, of which a checkpoint may have millions: 16 bytes a dim.
class Boxes {
 public:
  size_t size() const { return size_; }
  int64_t offset(size_t i, size_t dim) const { return numbers_[(i * rank_ + dim) * 2]; }
  int64_t extent(size_t i, size_t dim) const { return numbers_[(i * rank_ + dim) * 2 + 1]; }
  Shape offsets(size_t i) const;
  Shape sizes(size_t i) const;

  void reserve(size_t count, size_t rank) { numbers_.reserve(count * rank * 2); }
  void push_back(const Shape& offsets, const Shape& sizes);  // of as many dims as the others

 private:
  size_t rank_ = 0, size_ = 0;
  std::vector<int64_t> numbers_;  // offset and extent in turn
};

// A box of a tensor, in elements, and the item that holds it.
struct Chunk {
  Shape offsets, sizes;
  ItemRange item;
  std::string transforms;  // "zstd": not empty if the item's bytes are encoded
};

// Chunks of one tensor: 24 bytes each, and their boxes. They are made when they are asked for.
class Chunks {
 public:
  Chunks() = default;
  Chunks(std::initializer_list<Chunk> chunks) { append(chunks); }
  Chunks(const std::vector<Chunk>& chunks) { append(chunks); }  // NOLINT(google-explicit-constructor)

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  Chunk operator[](size_t i) const;
  Chunk front() const { return (*this)[0]; }
  const Boxes& boxes() const { return boxes_; }
  const ItemRange& item(size_t i) const { return items_[i]; }
  ItemRange& item(size_t i) { return items_[i]; }

  void reserve(size_t count, size_t rank);
  void push_back(const Chunk& chunk);  // of as many dims as the others

  class Iterator {
   public:
    using value_type = Chunk;
    using difference_type = std::ptrdiff_t;
    Iterator() = default;
    Iterator(const Chunks& chunks, size_t at) : chunks_(&chunks), at_(at) {}
    Chunk operator*() const { return (*chunks_)[at_]; }
    Iterator& operator++() { return ++at_, *this; }
    Iterator operator++(int) {
      Iterator before = *this;
      ++at_;
      return before;
    }
    bool operator==(const Iterator& o) const { return at_ == o.at_; }

   private:
    const Chunks* chunks_ = nullptr;
    size_t at_ = 0;
  };
  Iterator begin() const { return {*this, 0}; }
  Iterator end() const { return {*this, size()}; }

 private:
  template <class Range>
  void append(const Range& chunks) {
    for (const Chunk& c : chunks) push_back(c);
  }

  Boxes boxes_;
  std::vector<ItemRange> items_;
  std::map<size_t, std::string> transforms_;  // of chunks that went through any
};

struct StoredTensor {
  std::string key;
  DType dtype{};
  Shape shape;
  std::string refusal;      // why it can be listed and not converted: a type or layout that is not read
  Chunks chunks;            // none of them empty; inside the shape
  Chunks replicas;          // what further ranks saved of the same boxes, each for itself
  size_t empty_chunks = 0;  // of ranks that hold nothing of it

  // Chunks and replicas in turn.
  size_t item_count() const { return chunks.size() + replicas.size(); }
  const ItemRange& item_range(size_t i) const {
    return i < chunks.size() ? chunks.item(i) : replicas.item(i - chunks.size());
  }
  Chunk item(size_t i) const { return i < chunks.size() ? chunks[i] : replicas[i - chunks.size()]; }
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
  auto operator<=>(const KeyPart&) const = default;
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
