// Writes a pickle as PyTorch's own files have it: protocol 2, and of that only the opcodes that torch's
// weights-only reader knows, where they can say it.
//
// What is not said as Python's pickler says it:
//   names       Python 3's (`builtins`), which every reader takes, but for the few that Python 2 has for
//   something else; nested classes by `getattr`, as Python's pickler names them
//   b""         as any bytes, by `_codecs.encode`; Python calls `bytes`, which the weights-only reader
//   refuses Counter     filled like an OrderedDict, not given a dict NEWOBJ_EX   a call of
//   `copyreg.__newobj_ex__`: plain opcodes, and nothing bound to a class
// Opcodes that the weights-only reader lacks are left for integers above 255 bytes (LONG4) and for tuples and
// calls that contain themselves (POP, POP_MARK); frozen sets and bytes of another codec want their own
// globals.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/pickle/opcodes.h"
#include "lib/pickle/value.h"
#include "lib/tensor/dtype.h"

namespace uckpt::pickle {

enum class DictType : uint8_t { kPlain, kOrderedDict, kCounter };

// A tensor in a storage of the same archive: the storage's key and size, and the view into it.
struct TensorText {
  DType dtype{};
  std::string_view key;       // "0"
  int64_t storage_numel = 0;  // elements
  std::span<const int64_t> shape, stride;
  int64_t offset = 0;  // elements
  bool requires_grad = false;
};

// Values are written one after the other; what is begun is ended. Throws Error for what a pickle cannot say,
// std::logic_error for calls out of order.
class Pickler {
 public:
  // Where a value already written can be had again.
  using Memo = uint32_t;
  static constexpr Memo kNoMemo = 0xffffffff;  // plain values that are not remembered

  Pickler();

  // About so many bytes will be written: the list of them need not grow by copies of itself.
  void expect(size_t bytes) { out_.reserve(bytes); }

  void none();
  void boolean(bool value);
  void integer(int64_t value);
  void big_integer(ByteSpan twos_complement);  // little-endian
  void real(double value);
  void text(std::string_view wtf8);  // the same short text is written once
  void bytes(ByteSpan value);
  void byte_array(ByteSpan value);
  void global(std::string_view module, std::string_view name);
  void again(Memo memo);

  void begin_list();  // values
  void end_list();
  void begin_dict(DictType type = DictType::kPlain);  // keys and values in turn
  void end_dict();
  void begin_tuple(size_t size);
  void end_tuple();

  // A call: the callable, a tuple of arguments. A new object: the class, a tuple of arguments for its
  // __new__.
  void begin_call();
  void end_call();
  void begin_object();
  void end_object();
  // In a dict, a call or an object: its items are written, and the one value that follows is given to BUILD.
  void state();

  void storage(DType dtype, std::string_view key, int64_t numel);  // of elements
  void tensor(const TensorText& tensor);

  // The memo of the value written last.
  Memo last() const { return last_; }

  // Asked before a node is written: true if it wrote one value in its place. Nodes met again are what was
  // written then, and not asked for; numbers, None, names and persistent ids are asked for each time.
  using Replace = std::function<bool(const Value& value, Pickler& out)>;

  // Writes the value as it was read: the same globals, kinds and shared parts, cycles too. Its document must
  // outlive the pickler: nodes that a former copy wrote are referred to. Throws where protocol 2 has no word
  // for it: names with line breaks or computed by a call, sets that contain themselves, dangerous globals.
  void copy(const Value& value, const Replace& replace = {});

  // For edited copies, between begin_dict and end_dict: the entries of a dict but those with such keys.
  void copy_entries(const Value& dict, std::span<const std::string_view> except = {},
                    const Replace& replace = {});
  void copy_entries(const Value& dict, std::initializer_list<std::string_view> except,
                    const Replace& replace = {}) {
    copy_entries(dict, std::span(except.begin(), except.size()), replace);
  }
  // Begins a dict of the same type, with the same factory.
  void begin_dict_like(const Value& dict);

  // The pickle. Nothing can be written after it.
  Bytes finish();

 private:
  friend class Copier;

  enum class Shape : uint8_t { kList, kDict, kTuple, kCall, kObject, kPersistent };
  // What is written at this moment: the parts that make the thing, what it holds, what BUILD gives it.
  enum class Phase : uint8_t { kParts, kMade, kItems, kPairs, kState, kDone };
  struct Frame {
    Shape shape;
    Phase phase;
    bool single = false;  // it will hold one item: APPEND, not APPENDS
    bool marked = false;
    size_t base = 0;  // in the stack: of the parts, or of the items not yet put in
    size_t size = 0;  // parts
  };

  void op(Op code) { out_.push_back(static_cast<uint8_t>(code)); }
  template <class T>
  void number(T value) {
    out_.resize(out_.size() + sizeof value);
    store_le(out_.data() + out_.size() - sizeof value, value);
  }
  void sized(Op code, std::string_view bytes);
  Memo put();
  void get(Memo memo);

  void start();                                     // before a value's first byte
  void push(Memo memo) { stack_.push_back(memo); }  // it is there
  void done();                                      // and whole
  void scalar() { push(kNoMemo), done(); }
  void begin(Shape shape, Phase phase, size_t size = 0);
  void begin_box(Op empty, Shape shape, bool single);
  void begin_pairs(bool single);
  void items(Phase phase, bool single);
  void make(Frame& frame);
  void flush(Frame& frame);
  Frame& top(Shape expected);
  void close();
  void drop_and_get(Memo memo);

  void global_line(std::string_view module, std::string_view name);
  void nested_class(std::string_view module, std::string_view name);
  void empty_tuple();
  void plain_text(std::string_view wtf8);  // without a look whether it was written before
  void latin1(ByteSpan bytes);
  void long_integer(ByteSpan twos_complement);
  void integers(std::span<const int64_t> values);
  void begin_persistent();
  void end_persistent();

  Bytes out_;
  std::vector<Memo> stack_;  // what a reader's stack would hold at this point
  std::vector<Frame> frames_;
  Memo next_memo_ = 0, last_ = kNoMemo;
  bool finished_ = false;
  std::unordered_map<std::string, Memo> texts_, globals_;
  std::unordered_map<const Document*, std::vector<Memo>> copied_;  // by node
};

}  // namespace uckpt::pickle
