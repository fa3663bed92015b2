#include "lib/pickle/machine.h"

#include <algorithm>
#include <array>
#include <bit>

#include "lib/base/text.h"
#include "lib/pickle/builder.h"
#include "lib/pickle/cursor.h"
#include "lib/pickle/memo.h"
#include "lib/pickle/recalled.h"

namespace uckpt::pickle {

namespace {

constexpr size_t kMaxBigInt = 1024;

class Machine {
 public:
  Machine(const std::shared_ptr<const Bytes>& bytes, size_t start, size_t available, const Limits& limits)
      : in_(bytes, start, available, limits), limits_(limits), build_(bytes, limits, in_.place()) {}
  // Of a pickle that comes in parts.
  Machine(size_t size, const ReadAt& read, const Recalled& recalled, Folder& folder, const Limits& limits)
      : in_(size, read, limits),
        limits_(limits),
        build_(size, folder, limits, in_.place()),
        memo_(recalled),
        folds_(true) {}

  std::unique_ptr<Document> run();

 private:
  Error error(std::string code, std::string_view what) const { return in_.error(std::move(code), what); }

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

  Cursor in_;
  Limits limits_;
  Builder build_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  Memo memo_;
  bool folds_ = false;
  std::vector<uint32_t> kept_;  // numbers in the memo of what was remembered since the first open fold
  std::vector<uint32_t> survivors_;
};

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
  const Cursor::Taken taken = in_.bytes(size);
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
  const auto size = in_.number<int32_t>();
  if (size < 0) throw error("pickle.length", cat("expected a length, found ", size));
  const Cursor::Taken taken = in_.bytes(static_cast<uint64_t>(size));
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
    const Cursor::Taken taken = in_.bytes(size);
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
      return push(build_.integer(in_.number<int32_t>()));
    case Op::kBinInt1:
      return push(build_.integer(in_.number<uint8_t>()));
    case Op::kBinInt2:
      return push(build_.integer(in_.number<uint16_t>()));
    case Op::kLong1:
      return long_integer(in_.number<uint8_t>());
    case Op::kLong4: {
      const auto size = in_.number<int32_t>();
      if (size < 0) throw error("pickle.length", cat("expected a length, found ", size));
      in_.must_exist(static_cast<uint64_t>(size));
      return long_integer(static_cast<size_t>(size));
    }
    case Op::kBinFloat:
      return push(build_.real(std::bit_cast<double>(__builtin_bswap64(in_.number<uint64_t>()))));
    case Op::kBinString:
      return signed_string();
    case Op::kShortBinString:
      return put(&Builder::byte_string, in_.number<uint8_t>());
    case Op::kBinBytes:
      return put(&Builder::bytes, in_.number<uint32_t>());
    case Op::kShortBinBytes:
      return put(&Builder::bytes, in_.number<uint8_t>());
    case Op::kBinBytes8:
      return put(&Builder::bytes, in_.number<uint64_t>());
    case Op::kByteArray8:
      return put(&Builder::byte_array, in_.number<uint64_t>());
    case Op::kShortBinUnicode:
      return put(&Builder::text, in_.number<uint8_t>());
    case Op::kBinUnicode:
      return put(&Builder::text, in_.number<uint32_t>());
    case Op::kBinUnicode8:
      return put(&Builder::text, in_.number<uint64_t>());
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
      const std::string module = in_.text_line();
      return push(build_.global(module, in_.text_line()));
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
      const std::string module = in_.text_line();
      const uint32_t cls = build_.global(module, in_.text_line());
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
      const Cursor::Taken id = in_.line();
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
      remember(in_.number<uint8_t>());
      break;
    case Op::kLongBinPut:
      remember(in_.number<uint32_t>());
      break;
    case Op::kMemoize:
      remember(static_cast<uint32_t>(memo_.size()));
      break;
    case Op::kBinGet:
      recall(in_.number<uint8_t>());
      break;
    case Op::kLongBinGet:
      recall(in_.number<uint32_t>());
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
      in_.start_frame();
      break;
    default:
      step_value(op);
      break;
  }
  return true;
}

std::unique_ptr<Document> Machine::run() {
  build_.set_protocol(in_.protocol());
  while (step(in_.opcode())) {
  }
  in_.check_end();
  if (!marks_.empty()) throw error("pickle.stop", "expected no open MARK at the end, found one");
  if (stack_.size() != 1)
    throw error("pickle.stop", cat("expected one value at the end, found ", stack_.size()));
  return build_.finish(stack_[0], in_.position());
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
  return Machine(bytes, std::min(start, size), size, limits).run();
}

std::unique_ptr<Document> parse_whole(Bytes bytes, const Limits& limits) {
  return whole(parse(std::make_shared<const Bytes>(std::move(bytes)), 0, limits));
}

std::unique_ptr<Document> parse_prefix(std::shared_ptr<const Bytes> bytes, size_t available,
                                       const Limits& limits) {
  check_size(bytes->size(), limits);
  try {
    return Machine(bytes, 0, available, limits).run();
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
