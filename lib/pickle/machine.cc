#include "lib/pickle/machine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/pickle/builder.h"
#include "lib/pickle/memo.h"
#include "lib/pickle/opcodes.h"
#include "lib/pickle/recalled.h"
#include "lib/pickle/window.h"

namespace uckpt::pickle {

namespace {

constexpr size_t kMaxBigInt = 1024;

// Thrown where the bytes at hand end but the source goes on; never leaves this file.
struct NeedMore {};

class Machine {
 public:
  Machine(std::shared_ptr<const Bytes> bytes, size_t start, size_t available, const Limits& limits)
      : window_(bytes),
        pos_(start),
        end_(bytes->size()),
        window_end_(bytes->size()),
        available_(available),
        limits_(limits),
        build_(bytes, limits, place_) {}
  // Of a pickle that comes in parts.
  Machine(size_t size, const ReadAt& read, const Recalled& recalled, Folder& folder, const Limits& limits)
      : window_(size, read),
        pos_(0),
        end_(size),
        window_end_(size),
        available_(size),
        limits_(limits),
        build_(size, folder, limits, place_),
        memo_(recalled),
        folds_(true) {}

  std::unique_ptr<Document> run();

 private:
  Error error(std::string code, std::string_view what) const { return place_.error(std::move(code), what); }
  size_t left() const { return end_ - pos_; }
  [[noreturn]] void ends_short(uint64_t wanted) const;
  size_t take(uint64_t size);  // offset of the next `size` bytes
  template <class T>
  T number() {
    return load_le<T>(window_.get(take(sizeof(T)), sizeof(T)));
  }
  struct Taken {
    size_t at;
    ByteSpan bytes;  // until the next are taken
  };
  Taken bytes(uint64_t size);
  Taken line();
  std::string text_line();
  void start_frame();
  void leave_frame();

  size_t fence() const { return marks_.empty() ? 0 : marks_.back(); }
  void need(size_t count) const;
  void push(uint32_t id) { stack_.push_back(id); }
  void cut(size_t size) {
    stack_.resize(size);
    build_.cut(size);
  }
  uint32_t pop();
  uint32_t top() const;
  std::span<const uint32_t> above_mark();
  void drop_to_mark();
  std::span<const uint32_t> top_items(size_t count);

  bool step(Op op);
  void step_value(Op op);
  void step_object(Op op);
  void long_integer(size_t size);
  void signed_string();
  void add_tuple(size_t count);
  void add_dict();
  void remember(uint32_t index);
  void recall(uint32_t index);
  void fold();
  [[noreturn]] void refuse(Op op) const;

  Window window_;
  size_t pos_, end_, window_end_;  // end_: of the frame, inside one
  size_t available_;               // bytes that exist, here or not
  bool in_frame_ = false;
  Limits limits_;
  Place place_;
  Builder build_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  Memo memo_;
  bool folds_ = false;
  std::vector<uint32_t> kept_;  // numbers in the memo of what was remembered since the first open fold
  std::vector<uint32_t> survivors_;
};

void Machine::ends_short(uint64_t wanted) const {
  if (in_frame_)
    throw error("pickle.frame", cat("expected ", wanted, " bytes inside the frame, found ", left()));
  if (wanted <= available_ - pos_) throw NeedMore{};
  throw error("pickle.truncated", cat("expected ", wanted, " more bytes, found ", available_ - pos_));
}

size_t Machine::take(uint64_t size) {
  if (size > left()) ends_short(size);
  const size_t at = pos_;
  pos_ += static_cast<size_t>(size);
  return at;
}

Machine::Taken Machine::bytes(uint64_t size) {
  const size_t at = take(size);
  return {at, {window_.get(at, static_cast<size_t>(size)), static_cast<size_t>(size)}};
}

Machine::Taken Machine::line() {
  const size_t longest = static_cast<size_t>(limits_.global_name) + 1, looked_at = std::min(left(), longest);
  const uint8_t* begin = looked_at == 0 ? nullptr : window_.get(pos_, looked_at);
  const void* found = looked_at == 0 ? nullptr : std::memchr(begin, '\n', looked_at);
  if (!found) {
    if (left() >= longest)
      throw error("limit.global_name",
                  cat("expected a name of at most ", limits_.global_name, " bytes, found a longer one"));
    ends_short(left() + 1);
  }
  const size_t size = static_cast<size_t>(static_cast<const uint8_t*>(found) - begin), at = pos_;
  pos_ += size + 1;
  return {at, {begin, size}};
}

std::string Machine::text_line() {
  const ByteSpan found = line().bytes;
  return {found.begin(), found.end()};
}

void Machine::start_frame() {
  if (in_frame_) throw error("pickle.frame", "expected no frame inside a frame");
  const auto size = number<uint64_t>();
  if (size > available_ - pos_)
    throw error("pickle.truncated", cat("expected a frame of ", size, " bytes, found ", available_ - pos_));
  if (size > left()) throw NeedMore{};
  in_frame_ = size > 0;
  end_ = in_frame_ ? pos_ + static_cast<size_t>(size) : window_end_;
}

void Machine::leave_frame() {
  in_frame_ = false;
  end_ = window_end_;
}

void Machine::need(size_t count) const {
  if (stack_.size() - fence() < count)
    throw error("pickle.underflow",
                cat("expected ", count, " values on the stack, found ", stack_.size() - fence()));
}

uint32_t Machine::pop() {
  need(1);
  const uint32_t id = stack_.back();
  cut(stack_.size() - 1);
  return id;
}

uint32_t Machine::top() const {
  need(1);
  return stack_.back();
}

std::span<const uint32_t> Machine::above_mark() {
  if (marks_.empty()) throw error("pickle.no_mark", "expected a MARK before it, found none");
  return std::span(stack_).subspan(marks_.back());
}

void Machine::drop_to_mark() {
  cut(marks_.back());
  marks_.pop_back();
}

std::span<const uint32_t> Machine::top_items(size_t count) {
  need(count);
  return std::span(stack_).last(count);
}

void Machine::long_integer(size_t size) {
  if (size > kMaxBigInt)
    throw error("limit.integer", cat("expected an integer of at most ", kMaxBigInt, " bytes, found ", size));
  const Taken taken = bytes(size);
  const uint8_t* p = taken.bytes.data();
  // Bytes that only repeat the sign say nothing.
  while (size > 1 &&
         ((p[size - 1] == 0 && p[size - 2] < 0x80) || (p[size - 1] == 0xff && p[size - 2] >= 0x80)))
    --size;
  if (size > sizeof(int64_t)) return push(build_.big_integer(taken.at, taken.bytes.first(size)));
  uint64_t value = size > 0 && p[size - 1] >= 0x80 ? ~uint64_t{0} : 0;
  if (size > 0) std::memcpy(&value, p, size);
  push(build_.integer(static_cast<int64_t>(value)));
}

void Machine::signed_string() {
  const auto size = number<int32_t>();
  if (size < 0) throw error("pickle.length", cat("expected a length, found ", size));
  const Taken taken = bytes(static_cast<uint64_t>(size));
  push(build_.byte_string(taken.at, taken.bytes));
}

void Machine::add_tuple(size_t count) {
  const uint32_t id = build_.tuple(top_items(count));
  cut(stack_.size() - count);
  push(id);
}

void Machine::add_dict() {
  const uint32_t id = build_.container(Kind::kDict);
  build_.set_items(id, above_mark());
  drop_to_mark();
  push(id);
}

void Machine::remember(uint32_t index) {
  if (static_cast<int64_t>(memo_.size()) >= limits_.nodes)
    throw error("limit.nodes", "expected fewer remembered values");
  memo_.put(index, top());
  if (!folds_) return;
  if (!build_.has_open_fold())
    kept_.clear();
  else if (memo_.get(index) != kNoNode)
    kept_.push_back(index);
}

// The value on top has its state: it may become a node with a number.
void Machine::fold() {
  const auto at = build_.ready_fold(top(), stack_.size());
  if (!at) return;
  survivors_.clear();
  for (size_t i = *at; i < kept_.size(); ++i) survivors_.push_back(memo_.get(kept_[i]));
  if (build_.fold(survivors_))
    for (size_t i = *at; i < kept_.size(); ++i) memo_.put(kept_[i], survivors_[i - *at]);
}

void Machine::recall(uint32_t index) {
  const uint32_t id = memo_.get(index);
  if (id == kNoNode)
    throw error("pickle.memo", cat("expected a value remembered as ", index, ", found none"));
  push(id);
}

void Machine::refuse(Op op) const {
  switch (op) {
    case Op::kExt1:
    case Op::kExt2:
    case Op::kExt4:
      throw error("pickle.extension", "extension codes stand for classes of the writer's process: refused");
    case Op::kNextBuffer:
    case Op::kReadOnlyBuffer:
      throw error("pickle.buffer", "the data lie in a buffer outside of the file: refused");
    case Op::kProto:
      throw error("pickle.protocol", "expected the protocol once, at the start");
    default:
      break;
  }
  if (!name_of(op).empty())
    throw error("pickle.text_opcode", "text opcodes of protocols 0 and 1 are refused");
  throw error("pickle.opcode", cat("expected an opcode, found byte 0x", hex(static_cast<uint8_t>(op), 2)));
}

void Machine::step_value(Op op) {
  const auto put = [&](uint32_t (Builder::*make)(size_t, ByteSpan), uint64_t size) {
    const Taken taken = bytes(size);
    push((build_.*make)(taken.at, taken.bytes));
  };
  switch (op) {
    case Op::kNone:
      return push(Builder::kNone);
    case Op::kNewTrue:
      return push(Builder::kTrue);
    case Op::kNewFalse:
      return push(Builder::kFalse);
    case Op::kBinInt:
      return push(build_.integer(number<int32_t>()));
    case Op::kBinInt1:
      return push(build_.integer(number<uint8_t>()));
    case Op::kBinInt2:
      return push(build_.integer(number<uint16_t>()));
    case Op::kLong1:
      return long_integer(number<uint8_t>());
    case Op::kLong4: {
      const auto size = number<int32_t>();
      if (size < 0) throw error("pickle.length", cat("expected a length, found ", size));
      if (static_cast<size_t>(size) > available_ - pos_) ends_short(static_cast<uint64_t>(size));
      return long_integer(static_cast<size_t>(size));
    }
    case Op::kBinFloat:
      return push(build_.real(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()))));
    case Op::kBinString:
      return signed_string();
    case Op::kShortBinString:
      return put(&Builder::byte_string, number<uint8_t>());
    case Op::kBinBytes:
      return put(&Builder::bytes, number<uint32_t>());
    case Op::kShortBinBytes:
      return put(&Builder::bytes, number<uint8_t>());
    case Op::kBinBytes8:
      return put(&Builder::bytes, number<uint64_t>());
    case Op::kByteArray8:
      return put(&Builder::byte_array, number<uint64_t>());
    case Op::kShortBinUnicode:
      return put(&Builder::text, number<uint8_t>());
    case Op::kBinUnicode:
      return put(&Builder::text, number<uint32_t>());
    case Op::kBinUnicode8:
      return put(&Builder::text, number<uint64_t>());
    case Op::kEmptyTuple:
      return push(Builder::kEmptyTuple);
    case Op::kEmptyList:
      return push(build_.container(Kind::kList));
    case Op::kEmptyDict:
      return push(build_.container(Kind::kDict));
    case Op::kEmptySet:
      return push(build_.container(Kind::kSet));
    default:
      return step_object(op);
  }
}

void Machine::step_object(Op op) {
  switch (op) {
    case Op::kGlobal: {
      const std::string module = text_line();
      return push(build_.global(module, text_line()));
    }
    case Op::kStackGlobal: {
      const auto names = top_items(2);
      const uint32_t id = build_.stack_global(names[0], names[1]);
      cut(stack_.size() - 2);
      return push(id);
    }
    case Op::kReduce:
    case Op::kNewObj: {
      const auto call = top_items(2);
      const uint32_t id =
          op == Op::kReduce ? build_.reduce(call[0], call[1]) : build_.new_object(call[0], call[1]);
      cut(stack_.size() - 2);
      push(id);
      if (folds_ && op == Op::kNewObj) build_.open_fold(id, stack_.size(), kept_.size());
      return;
    }
    case Op::kNewObjEx: {
      const auto call = top_items(3);
      const uint32_t id = build_.new_object(call[0], call[1], call[2]);
      cut(stack_.size() - 3);
      return push(id);
    }
    case Op::kBuild: {
      const uint32_t state = pop();
      build_.build(top(), state);
      if (folds_) fold();
      return;
    }
    case Op::kInst: {
      const std::string module = text_line();
      const uint32_t cls = build_.global(module, text_line());
      const uint32_t id = build_.instance(cls, above_mark());
      drop_to_mark();
      return push(id);
    }
    case Op::kObj: {
      const auto call = above_mark();
      if (call.empty()) throw error("pickle.underflow", "expected a class after the MARK, found nothing");
      const uint32_t id = build_.instance(call[0], call.subspan(1));
      drop_to_mark();
      return push(id);
    }
    case Op::kPersId: {
      const Taken id = line();
      return push(build_.persistent(build_.text(id.at, id.bytes)));
    }
    case Op::kBinPersId:
      return push(build_.persistent(pop()));
    default:
      refuse(op);
  }
}

// False after STOP.
bool Machine::step(Op op) {
  switch (op) {
    case Op::kStop:
      return false;
    case Op::kMark:
      marks_.push_back(stack_.size());
      break;
    case Op::kPop:
      pop();
      break;
    case Op::kPopMark:
      above_mark(), drop_to_mark();
      break;
    case Op::kDup:
      push(top());
      break;
    case Op::kBinPut:
      remember(number<uint8_t>());
      break;
    case Op::kLongBinPut:
      remember(number<uint32_t>());
      break;
    case Op::kMemoize:
      remember(static_cast<uint32_t>(memo_.size()));
      break;
    case Op::kBinGet:
      recall(number<uint8_t>());
      break;
    case Op::kLongBinGet:
      recall(number<uint32_t>());
      break;
    case Op::kTuple1:
      add_tuple(1);
      break;
    case Op::kTuple2:
      add_tuple(2);
      break;
    case Op::kTuple3:
      add_tuple(3);
      break;
    case Op::kTuple: {
      const uint32_t id = build_.tuple(above_mark());
      drop_to_mark(), push(id);
      break;
    }
    case Op::kFrozenSet: {
      const uint32_t id = build_.frozen_set(above_mark());
      drop_to_mark(), push(id);
      break;
    }
    case Op::kList: {
      const uint32_t id = build_.container(Kind::kList);
      build_.append(id, above_mark());
      drop_to_mark(), push(id);
      break;
    }
    case Op::kDict:
      add_dict();
      break;
    case Op::kAppend: {
      const uint32_t item = pop();
      build_.append(top(), std::array{item});
      break;
    }
    case Op::kAppends:
    case Op::kSetItems:
    case Op::kAddItems: {
      const auto items = above_mark();
      marks_.pop_back();
      if (stack_.size() - items.size() <= fence())
        throw error("pickle.underflow", "expected a container before the MARK, found none");
      const uint32_t target = stack_[stack_.size() - items.size() - 1];
      if (op == Op::kAppends)
        build_.append(target, items);
      else if (op == Op::kSetItems)
        build_.set_items(target, items);
      else
        build_.add_items(target, items);
      cut(stack_.size() - items.size());
      break;
    }
    case Op::kSetItem: {
      const auto pair = top_items(3);
      build_.set_items(pair[0], pair.subspan(1));
      cut(stack_.size() - 2);
      break;
    }
    case Op::kFrame:
      start_frame();
      break;
    default:
      step_value(op);
      break;
  }
  return true;
}

std::unique_ptr<Document> Machine::run() {
  place_.at = pos_;
  place_.op = Op::kProto;
  const auto first = number<uint8_t>();
  if (first != static_cast<uint8_t>(Op::kProto))
    throw refused(
        "pickle.protocol",
        cat("byte ", place_.at, ": expected PROTO (0x80) to start a pickle, found 0x", hex(first, 2)));
  const auto protocol = number<uint8_t>();
  if (protocol < 2 || protocol > 5)
    throw error("pickle.protocol", cat("expected protocol 2 to 5, found ", static_cast<int>(protocol)));
  build_.set_protocol(protocol);
  Op op;
  do {
    if (pos_ == end_ && in_frame_) leave_frame();
    place_.at = pos_;
    place_.op = Op::kStop;  // what is missing where the bytes end
    op = static_cast<Op>(number<uint8_t>());
    place_.op = op;
  } while (step(op));
  if (in_frame_ && pos_ != end_)
    throw error("pickle.frame", cat("expected the end of the frame, found ", left(), " bytes more"));
  if (!marks_.empty()) throw error("pickle.stop", "expected no open MARK at the end, found one");
  if (stack_.size() != 1)
    throw error("pickle.stop", cat("expected one value at the end, found ", stack_.size()));
  return build_.finish(stack_[0], pos_);
}

void check_size(size_t size, const Limits& limits) {
  if (static_cast<int64_t>(size) > limits.pickle_bytes)
    throw refused("limit.pickle_bytes",
                  cat("expected a pickle of at most ", limits.pickle_bytes, " bytes, found ", size));
}

std::unique_ptr<Document> whole(std::unique_ptr<Document> document) {
  const size_t size = document->pickle_size();
  if (document->end() != size)
    throw refused("pickle.trailing", cat("byte ", document->end(), ": expected the end after STOP, found ",
                                         size - document->end(), " bytes more"));
  return document;
}

}  // namespace

std::unique_ptr<Document> parse(std::shared_ptr<const Bytes> bytes, size_t start, const Limits& limits) {
  check_size(bytes->size(), limits);
  const size_t size = bytes->size();
  return Machine(std::move(bytes), std::min(start, size), size, limits).run();
}

std::unique_ptr<Document> parse_whole(Bytes bytes, const Limits& limits) {
  return whole(parse(std::make_shared<const Bytes>(std::move(bytes)), 0, limits));
}

std::unique_ptr<Document> parse_prefix(std::shared_ptr<const Bytes> bytes, size_t available,
                                       const Limits& limits) {
  check_size(bytes->size(), limits);
  try {
    return Machine(std::move(bytes), 0, available, limits).run();
  } catch (const NeedMore&) {
    return nullptr;
  }
}

std::unique_ptr<Document> parse_folding(size_t size, const ReadAt& read, Folder& folder,
                                        const Limits& limits) {
  check_size(size, limits);
  const Recalled recalled(size, read);
  return whole(Machine(size, read, recalled, folder, limits).run());
}

}  // namespace uckpt::pickle
