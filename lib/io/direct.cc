#include "lib/io/direct.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "lib/io/staging.h"

namespace uckpt {

std::span<uint8_t> PageBuffer::append(size_t bytes) {
  constexpr auto kPage = static_cast<size_t>(kPageBytes);
  const size_t needed = phase_ + size_ + bytes;
  if (needed > capacity_) {
    const size_t capacity = (std::max(needed, phase_ + expected_) + kPage - 1) / kPage * kPage;
    std::unique_ptr<uint8_t, Free> grown(static_cast<uint8_t*>(std::aligned_alloc(kPage, capacity)));
    if (!grown) throw std::bad_alloc();
    if (size_ > 0) std::memcpy(grown.get() + phase_, memory_.get() + phase_, size_);
    memory_ = std::move(grown);
    capacity_ = capacity;
  }
  const std::span<uint8_t> room(memory_.get() + phase_ + size_, bytes);
  size_ += bytes;
  return room;
}

int open_direct(const std::string& path) {
  return uninterrupted([&] { return ::open(path.c_str(), O_WRONLY | O_DIRECT | O_NOFOLLOW | O_CLOEXEC); });
}

void write_direct(int direct, int buffered, int64_t offset, std::span<const uint8_t> bytes,
                  const std::string& path) {
  const auto size = static_cast<int64_t>(bytes.size());
  const auto [head, pages] = whole_pages(offset, size);
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data() + head) % kPageBytes == 0;
  if (direct < 0 || pages == 0 || !aligned) return write_all(buffered, offset, bytes, path);
  const auto part = [bytes](int64_t from, int64_t count) {
    return bytes.subspan(static_cast<size_t>(from), static_cast<size_t>(count));
  };
  write_all(buffered, offset, part(0, head), path);
  write_all(direct, offset + head, part(head, pages), path);
  write_all(buffered, offset + head + pages, part(head + pages, size - head - pages), path);
}

}  // namespace uckpt
