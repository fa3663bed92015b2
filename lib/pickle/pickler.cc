#include "lib/pickle/pickler.h"

#include <stdexcept>

namespace uckpt::pickle {

namespace {

// As many items as Python's pickler puts in at once, so that a reader's stack stays small.
constexpr size_t kBatch = 1000;

std::logic_error misuse(const char* what) { return std::logic_error(what); }

}  // namespace

Pickler::Pickler() {
  op(Op::kProto);
  out_.push_back(2);
}

Pickler::Memo Pickler::put() {
  if (next_memo_ <= 0xff) {
    op(Op::kBinPut);
    out_.push_back(static_cast<uint8_t>(next_memo_));
  } else {
    op(Op::kLongBinPut);
    number(next_memo_);
  }
  return next_memo_++;
}

void Pickler::get(Memo memo) {
  if (memo >= next_memo_) throw misuse("pickler: no value with this memo");
  if (memo <= 0xff) {
    op(Op::kBinGet);
    out_.push_back(static_cast<uint8_t>(memo));
  } else {
    op(Op::kLongBinGet);
    number(memo);
  }
}

void Pickler::start() {
  if (finished_) throw misuse("pickler: nothing can be written after the end");
  if (frames_.empty()) {
    if (!stack_.empty()) throw misuse("pickler: a pickle holds one value");
    return;
  }
  Frame& frame = frames_.back();
  const size_t there = stack_.size() - frame.base;
  switch (frame.phase) {
    case Phase::kParts:
      if (there >= frame.size) throw misuse("pickler: more parts than were announced");
      break;
    case Phase::kItems:
    case Phase::kPairs:
      if (frame.single || frame.marked) break;
      op(Op::kMark);
      frame.marked = true;
      break;
    case Phase::kState:
      break;
    default:
      throw misuse("pickler: no value can stand here");
  }
}

// A value is whole: what it is a part of may be whole too, or have enough items to put in.
void Pickler::done() {
  last_ = stack_.back();
  if (frames_.empty()) return;
  Frame& frame = frames_.back();
  const size_t there = stack_.size() - frame.base;
  switch (frame.phase) {
    case Phase::kParts:
      if ((frame.shape == Shape::kCall || frame.shape == Shape::kObject) && there == frame.size) make(frame);
      break;
    case Phase::kItems:
      if (there == (frame.single ? 1 : kBatch)) flush(frame);
      break;
    case Phase::kPairs:
      if (there == (frame.single ? 2 : 2 * kBatch)) flush(frame);
      break;
    default:
      op(Op::kBuild);
      stack_.pop_back();
      frame.phase = Phase::kDone;
  }
}

void Pickler::make(Frame& frame) {
  op(frame.shape == Shape::kCall ? Op::kReduce : Op::kNewObj);
  stack_.resize(frame.base);
  push(put());
  frame.base = stack_.size();
  frame.phase = Phase::kMade;
}

void Pickler::flush(Frame& frame) {
  const size_t there = stack_.size() - frame.base;
  if (there == 0) return;
  const bool pairs = frame.phase == Phase::kPairs;
  if (pairs && there % 2 != 0) throw misuse("pickler: a key without a value");
  if (pairs)
    op(frame.single ? Op::kSetItem : Op::kSetItems);
  else
    op(frame.single ? Op::kAppend : Op::kAppends);
  stack_.resize(frame.base);
  frame.marked = false;
}

void Pickler::begin(Shape shape, Phase phase, size_t size) {
  frames_.push_back({shape, phase, false, false, stack_.size(), size});
}

void Pickler::begin_box(Op empty, Shape shape, bool single) {
  start();
  op(empty);
  push(put());
  begin(shape, shape == Shape::kList ? Phase::kItems : Phase::kPairs);
  frames_.back().single = single;
}

// What follows goes into the thing that a call or an object made.
void Pickler::items(Phase phase, bool single) {
  Frame& frame = frames_.back();
  frame.phase = phase;
  frame.single = single;
}

Pickler::Frame& Pickler::top(Shape expected) {
  if (frames_.empty() || frames_.back().shape != expected)
    throw misuse("pickler: what ends is not what was begun");
  return frames_.back();
}

void Pickler::close() {
  Frame& frame = frames_.back();
  if (frame.phase == Phase::kParts || frame.phase == Phase::kState)
    throw misuse("pickler: something ends before it is whole");
  if (frame.phase == Phase::kItems || frame.phase == Phase::kPairs) flush(frame);
  frames_.pop_back();
  done();
}

void Pickler::again(Memo memo) {
  start();
  get(memo);
  push(memo);
  done();
}

void Pickler::begin_list() { begin_box(Op::kEmptyList, Shape::kList, false); }

void Pickler::end_list() { top(Shape::kList), close(); }

void Pickler::begin_dict(DictType type) {
  if (type == DictType::kPlain) return begin_box(Op::kEmptyDict, Shape::kDict, false);
  begin_call();
  global("collections", type == DictType::kOrderedDict ? "OrderedDict" : "Counter");
  empty_tuple();
  begin_pairs(false);
}

// A dict that a call made is filled like any.
void Pickler::begin_pairs(bool single) {
  items(Phase::kPairs, single);
  frames_.back().shape = Shape::kDict;
}

void Pickler::end_dict() { top(Shape::kDict), close(); }

void Pickler::empty_tuple() {
  start();
  op(Op::kEmptyTuple);
  scalar();
}

void Pickler::begin_tuple(size_t size) {
  start();
  if (size > 3) op(Op::kMark);
  begin(Shape::kTuple, Phase::kParts, size);
}

void Pickler::end_tuple() {
  const Frame& frame = top(Shape::kTuple);
  const size_t size = frame.size;
  if (stack_.size() - frame.base != size) throw misuse("pickler: a tuple has fewer items than announced");
  constexpr Op kShort[] = {Op::kEmptyTuple, Op::kTuple1, Op::kTuple2, Op::kTuple3};
  op(size > 3 ? Op::kTuple : kShort[size]);
  stack_.resize(frame.base);
  frames_.pop_back();
  push(size == 0 ? kNoMemo : put());
  done();
}

void Pickler::begin_call() {
  start();
  begin(Shape::kCall, Phase::kParts, 2);
}

void Pickler::end_call() { top(Shape::kCall), close(); }

void Pickler::begin_object() {
  start();
  begin(Shape::kObject, Phase::kParts, 2);
}

void Pickler::end_object() { top(Shape::kObject), close(); }

void Pickler::state() {
  if (frames_.empty()) throw misuse("pickler: nothing that could have a state");
  Frame& frame = frames_.back();
  if (frame.phase == Phase::kItems || frame.phase == Phase::kPairs)
    flush(frame);
  else if (frame.phase != Phase::kMade)
    throw misuse("pickler: nothing that could have a state");
  frame.phase = Phase::kState;
}

void Pickler::begin_persistent() {
  start();
  begin(Shape::kPersistent, Phase::kParts, 1);
}

void Pickler::end_persistent() {
  top(Shape::kPersistent);
  op(Op::kBinPersId);
  stack_.pop_back();
  frames_.pop_back();
  scalar();
}

// The thing just made was written before, inside of its own parts: that one is meant.
void Pickler::drop_and_get(Memo memo) {
  const Frame frame = frames_.back();
  frames_.pop_back();
  if (frame.shape == Shape::kTuple && frame.size > 3) {
    op(Op::kPopMark);
    stack_.resize(frame.base);
  } else {
    const size_t left = frame.shape == Shape::kTuple ? frame.base : frame.base - 1;
    for (; stack_.size() > left; stack_.pop_back()) op(Op::kPop);
  }
  get(memo);
  push(memo);
  done();
}

Bytes Pickler::finish() {
  if (finished_ || !frames_.empty() || stack_.size() != 1)
    throw misuse("pickler: the end comes after one whole value");
  op(Op::kStop);
  finished_ = true;
  return std::move(out_);
}

}  // namespace uckpt::pickle
