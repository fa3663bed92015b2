// The datasets of an HDF5 file whose bytes do not lie in it as they are (compact, chunked, packed), as one
// range of bytes.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lib/io/input.h"
#include "lib/tensor/catalog.h"

namespace uckpt::hdf5 {

// Each dataset has its place here. It is decoded when bytes of it are first read: by a sandboxed child, block
// by block through a pipe, into a scratch file that has no name. Small datasets are decoded together, since
// starting a child costs milliseconds. Memory stays at a block, whatever the size. Reading is thread-safe.
class DecodedFile : public ByteSource {
 public:
  explicit DecodedFile(std::string path);
  ~DecodedFile() override;

  // Row-major, elements of `item_bytes` in the file's byte order. Returns the offset of the dataset's bytes
  // here. All are added before the first read.
  int64_t add(std::string dataset, Shape shape, Shape chunk, int64_t item_bytes);

  int64_t size() const override { return size_; }
  void read_at(int64_t offset, std::span<uint8_t> out) const override;
  const std::string& name() const override { return path_; }

 private:
  struct Item {
    std::string dataset;
    Shape shape, block;  // block: what is decoded at once
    int64_t item_bytes, offset, bytes;
  };
  struct Batch {
    size_t first = 0, count = 0;  // items
    int64_t offset = 0, bytes = 0;
    std::mutex mutex;
    bool done = false;
  };
  void ensure(Batch& batch) const;
  void decode(const Batch& batch) const;
  void write_at(int64_t offset, ByteSpan bytes) const;
  int scratch() const;

  std::string path_;
  int64_t size_ = 0;
  std::vector<Item> items_;
  std::vector<std::unique_ptr<Batch>> batches_;  // by offset
  mutable std::once_flag scratch_made_;
  mutable int scratch_ = -1;
};

// The box that is decoded at once: whole chunks, along the last dimensions first, until there are about 1
// MiB.
Shape block_shape(const Shape& shape, const Shape& chunk, int64_t item_bytes);

}  // namespace uckpt::hdf5
