// The bytes of a pickle at hand: all of them, or a part that moves on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "lib/base/bytes.h"

namespace uckpt::pickle {

// Fills `out` from a byte of the pickle on, or throws.
using ReadAt = std::function<void(size_t at, std::span<uint8_t> out)>;

class Window {
 public:
  explicit Window(std::shared_ptr<const Bytes> whole)
      : whole_(std::move(whole)), base_(whole_->data()), end_(whole_->size()) {}
  Window(size_t size, const ReadAt& read) : read_(&read), total_(size) {}

  // Bytes that the pickle has. They stay where they are until the next call.
  const uint8_t* get(size_t at, size_t size) {
    if (at < begin_ || at + size > end_) load(at, size);
    return base_ + (at - begin_);
  }

 private:
  static constexpr size_t kPart = size_t{256} << 10;

  void load(size_t at, size_t size) {
    part_.resize(std::min(std::max(size, kPart), total_ - at));
    (*read_)(at, part_);
    base_ = part_.data(), begin_ = at, end_ = at + part_.size();
  }

  std::shared_ptr<const Bytes> whole_;
  const ReadAt* read_ = nullptr;
  Bytes part_;
  const uint8_t* base_ = nullptr;
  size_t begin_ = 0, end_ = 0, total_ = 0;
};

}  // namespace uckpt::pickle
