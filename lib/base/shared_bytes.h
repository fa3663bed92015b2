// Bytes that do not change and may have several holders.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "lib/base/bytes.h"

namespace uckpt {

class SharedBytes {
 public:
  SharedBytes() = default;
  SharedBytes(Bytes bytes)  // NOLINT(google-explicit-constructor)
      : bytes_(std::make_shared<const Bytes>(shrunk(std::move(bytes)))) {}

  size_t size() const { return bytes_ ? bytes_->size() : 0; }
  const uint8_t* begin() const { return bytes_ ? bytes_->data() : nullptr; }
  const uint8_t* end() const { return begin() + size(); }
  operator ByteSpan() const { return {begin(), size()}; }  // NOLINT(google-explicit-constructor)
  std::string_view text() const { return {reinterpret_cast<const char*>(begin()), size()}; }
  // Their memory, each holder's part of it.
  size_t share() const { return bytes_ ? size() / static_cast<size_t>(bytes_.use_count()) : 0; }

 private:
  // Small ones are many; of large ones it would take a copy.
  static Bytes shrunk(Bytes bytes) {
    constexpr size_t kSmall = 1 << 16;
    if (bytes.size() < kSmall) bytes.shrink_to_fit();
    return bytes;
  }
  std::shared_ptr<const Bytes> bytes_;
};

}  // namespace uckpt
