// Opcodes and their operands, taken off a pickle one after another: no byte is taken that is not there, or
// that lies outside of the frame that was announced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "lib/base/bytes.h"
#include "lib/pickle/place.h"
#include "lib/pickle/value.h"
#include "lib/pickle/window.h"

namespace uckpt::pickle {

// Thrown where the bytes at hand end but the source goes on.
struct NeedMore {};

class Cursor {
 public:
  // `available`: bytes that exist, here or not. `bytes` begin at the source's own begin.
  Cursor(const std::shared_ptr<const Bytes>& bytes, size_t start, size_t available, const Limits& limits)
      : window_(bytes),
        pos_(start),
        end_(bytes->size()),
        window_end_(bytes->size()),
        available_(available),
        longest_line_(static_cast<size_t>(limits.global_name)) {}
  // Of a pickle that comes in parts.
  Cursor(size_t size, const ReadAt& read, const Limits& limits)
      : window_(size, read),
        end_(size),
        window_end_(size),
        available_(size),
        longest_line_(static_cast<size_t>(limits.global_name)) {}
  Cursor(const Cursor&) = delete;  // others look at its place
  Cursor& operator=(const Cursor&) = delete;

  const Place& place() const { return place_; }
  size_t position() const { return pos_; }
  Error error(std::string code, std::string_view what) const { return place_.error(std::move(code), what); }

  // The first two bytes. Throws refused `pickle.protocol` unless they say 2 to 5.
  uint8_t protocol();
  Op opcode();

  // Operands. They throw refused `pickle.truncated` or `pickle.frame` where there are too few bytes.
  template <class T>
  T number() {
    return load_le<T>(window_.get(take(sizeof(T)), sizeof(T)));
  }
  struct Taken {
    size_t at;
    ByteSpan bytes;  // until the next are taken
  };
  Taken bytes(uint64_t size);
  Taken line();  // without its end; throws refused `limit.global_name` for a long one
  std::string text_line();
  void start_frame();

  // Throws as an operand of so many bytes does where they do not exist.
  void must_exist(uint64_t size) const {
    if (size > available_ - pos_) ends_short(size);
  }
  // Throws unless the last frame is used up.
  void check_end() const;

 private:
  size_t left() const { return end_ - pos_; }
  size_t take(uint64_t size) {  // offset of the next `size` bytes
    if (size > left()) ends_short(size);
    const size_t at = pos_;
    pos_ += static_cast<size_t>(size);
    return at;
  }
  [[noreturn]] void ends_short(uint64_t wanted) const;

  Window window_;
  size_t pos_ = 0, end_, window_end_;  // end_: of the frame, inside one
  size_t available_;
  size_t longest_line_;
  bool in_frame_ = false;
  Place place_;
};

}  // namespace uckpt::pickle
