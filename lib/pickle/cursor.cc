#include "lib/pickle/cursor.h"

#include <algorithm>
#include <cstring>

#include "lib/base/text.h"

namespace uckpt::pickle {

Error Place::error(std::string code, std::string_view what) const {
  const std::string_view name = name_of(op);
  return refused(std::move(code),
                 name.empty() ? cat("byte ", at, ": ", what) : cat(name, " at byte ", at, ": ", what));
}

void Cursor::ends_short(uint64_t wanted) const {
  if (in_frame_)
    throw error("pickle.frame", cat("expected ", wanted, " bytes inside the frame, found ", left()));
  if (wanted <= available_ - pos_) throw NeedMore{};
  throw error("pickle.truncated", cat("expected ", wanted, " more bytes, found ", available_ - pos_));
}

uint8_t Cursor::protocol() {
  place_ = {Op::kProto, pos_};
  const auto first = number<uint8_t>();
  if (first != static_cast<uint8_t>(Op::kProto))
    throw refused(
        "pickle.protocol",
        cat("byte ", place_.at, ": expected PROTO (0x80) to start a pickle, found 0x", hex(first, 2)));
  const auto protocol = number<uint8_t>();
  if (protocol < 2 || protocol > 5)
    throw error("pickle.protocol", cat("expected protocol 2 to 5, found ", static_cast<int>(protocol)));
  return protocol;
}

Op Cursor::opcode() {
  if (pos_ == end_ && in_frame_) {
    in_frame_ = false;
    end_ = window_end_;
  }
  place_ = {Op::kStop, pos_};  // what is missing where the bytes end
  place_.op = static_cast<Op>(number<uint8_t>());
  return place_.op;
}

Cursor::Taken Cursor::bytes(uint64_t size) {
  const size_t at = take(size);
  return {at, {window_.get(at, static_cast<size_t>(size)), static_cast<size_t>(size)}};
}

Cursor::Taken Cursor::line() {
  const size_t longest = longest_line_ + 1, looked_at = std::min(left(), longest);
  const uint8_t* begin = looked_at == 0 ? nullptr : window_.get(pos_, looked_at);
  const void* found = looked_at == 0 ? nullptr : std::memchr(begin, '\n', looked_at);
  if (!found) {
    if (left() >= longest)
      throw error("limit.global_name",
                  cat("expected a name of at most ", longest_line_, " bytes, found a longer one"));
    ends_short(left() + 1);
  }
  const size_t size = static_cast<size_t>(static_cast<const uint8_t*>(found) - begin), at = pos_;
  pos_ += size + 1;
  return {at, {begin, size}};
}

std::string Cursor::text_line() {
  const ByteSpan found = line().bytes;
  return {found.begin(), found.end()};
}

void Cursor::start_frame() {
  if (in_frame_) throw error("pickle.frame", "expected no frame inside a frame");
  const auto size = number<uint64_t>();
  if (size > available_ - pos_)
    throw error("pickle.truncated", cat("expected a frame of ", size, " bytes, found ", available_ - pos_));
  if (size > left()) throw NeedMore{};
  in_frame_ = size > 0;
  end_ = in_frame_ ? pos_ + static_cast<size_t>(size) : window_end_;
}

void Cursor::check_end() const {
  if (in_frame_ && pos_ != end_)
    throw error("pickle.frame", cat("expected the end of the frame, found ", left(), " bytes more"));
}

}  // namespace uckpt::pickle
