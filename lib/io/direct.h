// Writing past the page cache: whole pages of memory to whole pages of a file, the ragged edges through the
// cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>

namespace uckpt {

inline constexpr int64_t kPageBytes = 4096;

// Bytes on their way to one range of a file, held so that pages of the file are pages of memory.
class PageBuffer {
 public:
  // `expected`: what it will mostly hold; taken whole when it is first needed, since growing copies.
  explicit PageBuffer(size_t expected = 0) : expected_(expected) {}
  // Empties it; what comes next goes to this offset in the file.
  void begin(int64_t file_offset) {
    phase_ = static_cast<size_t>(file_offset % kPageBytes);
    size_ = 0;
  }
  // Room for `bytes` more, whose content is undefined. Earlier rooms may move.
  std::span<uint8_t> append(size_t bytes);
  std::span<const uint8_t> bytes() const { return {memory_.get() + phase_, size_}; }
  bool empty() const { return size_ == 0; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> memory_;
  size_t expected_, capacity_ = 0, phase_ = 0, size_ = 0;
};

// Which part of a range of a file is whole pages: so many bytes, that many behind its begin.
struct WholePages {
  int64_t at, bytes;
};
constexpr WholePages whole_pages(int64_t offset, int64_t bytes) {
  const int64_t to_page = (kPageBytes - offset % kPageBytes) % kPageBytes,
                at = to_page < bytes ? to_page : bytes;
  return {at, (bytes - at) / kPageBytes * kPageBytes};
}

// A second descriptor of a file that exists; -1 where its file system knows no direct writing.
int open_direct(const std::string& path);
// Bytes of a PageBuffer: whole pages by `direct`, the rest (all of it where `direct` is -1) by `buffered`.
void write_direct(int direct, int buffered, int64_t offset, std::span<const uint8_t> bytes,
                  const std::string& path);

}  // namespace uckpt
