// A file mapped to read scattered short runs out of it, for each of which a system call would cost more than
// the copy. The file may shrink or its disk fail meanwhile: that is an answer, not a signal.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace uckpt {

class Mapping {
 public:
  // Null where the file cannot be mapped.
  static std::unique_ptr<Mapping> of(int fd, int64_t size);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Runs of `length` bytes that lie `stride` apart from `offset` on, back to back into `out`, whose size is a
  // multiple of `length`; all of them lie inside the file as it was. False: some could not be read.
  bool copy_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const;

 private:
  Mapping(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_;
  size_t size_;
};

}  // namespace uckpt
