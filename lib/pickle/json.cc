#include "lib/pickle/json.h"

#include <cmath>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"
#include "lib/pickle/fields.h"
#include "lib/pickle/numpy.h"
#include "lib/pickle/utf8.h"
#include "lib/pickle/value_text.h"

namespace uckpt::pickle {

namespace {

constexpr int64_t kMaxArrayValues = 64;

// Counts the least bytes that a view takes, each shared node once, so that 2^60 items through 60 lists are
// refused before the first is written; finds cycles on the way.
class Measure {
 public:
  Measure(const Document& doc, int64_t limit) : doc_(doc), limit_(limit), size_(doc.node_count(), kNew) {}

  void run(uint32_t root) {
    open(root);
    while (!path_.empty()) {
      Step& top = path_.back();
      const uint32_t below = doc_.child(top.id, top.next++);
      if (below == kNoNode)
        close();
      else if (size_[below] == kNew)
        open(below);
      else if (size_[below] == kOpen)
        throw refused("pickle.cycle", "a value contains itself: it cannot be written out");
      else
        add(size_[below]);
    }
  }

 private:
  static constexpr int64_t kNew = -1, kOpen = -2;
  struct Step {
    uint32_t id, next;
    int64_t bytes;
  };

  void open(uint32_t id) {
    size_[id] = kOpen;
    const Node& node = doc_.node(id);
    int64_t own = 2;
    if (node.kind == Kind::kText) own += node.b;
    if (node.kind == Kind::kBytes) own += 2 * int64_t{node.b};
    path_.push_back({id, 0, own});
  }

  void add(int64_t bytes) {
    path_.back().bytes += bytes;
    if (path_.back().bytes > limit_) throw_too_long(limit_);
  }

  void close() {
    const Step done = path_.back();
    path_.pop_back();
    size_[done.id] = done.bytes;
    if (!path_.empty()) add(done.bytes);
  }

 public:
  [[noreturn]] static void throw_too_long(int64_t limit) {
    throw refused("limit.json_bytes",
                  cat("expected a view of at most ", limit, " bytes: shared parts make it longer"));
  }

 private:
  const Document& doc_;
  int64_t limit_;
  std::vector<int64_t> size_;
  std::vector<Step> path_;
};

// Most values that are asked for one by one are small: a short walk that ends proves that they are no trap,
// and spares a table of all nodes.
bool is_small(const Document& doc, uint32_t root) {
  constexpr int kFew = 200;
  std::vector<uint32_t> open{root};
  for (int visited = 0; !open.empty(); ++visited) {
    if (visited == kFew) return false;
    const uint32_t id = open.back();
    open.pop_back();
    if (doc.links(doc.node(id)).size() > kFew) return false;
    for (uint32_t i = 0;; ++i) {
      const uint32_t below = doc.child(id, i);
      if (below == kNoNode) break;
      open.push_back(below);
    }
  }
  return true;
}

class Writer {
 public:
  Writer(const Limits& limits, const TensorLookup& tensors) : limit_(limits.json_bytes), tensors_(tensors) {}

  std::string run(const Value& root) {
    open(root);
    while (!path_.empty()) {
      Step& top = path_.back();
      const Field field = field_at(top.value, top.next);
      if (!field.value) {
        out_ += top.is_array ? ']' : '}';
        path_.pop_back();
      } else {
        if (top.next++ > 0 || top.after_class) out_ += ',';
        if (!top.is_array) key(field);
        open(field.value);
      }
      if (static_cast<int64_t>(out_.size()) > limit_) Measure::throw_too_long(limit_);
    }
    return std::move(out_);
  }

 private:
  struct Step {
    Value value;
    size_t next;
    bool is_array, after_class;
  };

  void key(const Field& field) {
    string(field.key ? key_text(field.key) : field.name);
    out_ += ':';
  }

  // Writes a plain value, or the opening of a nested one.
  void open(const Value& value) {
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += *value.boolean() ? "true" : "false";
        return;
      case Kind::kInt:
        out_ += cat(*value.integer());
        return;
      case Kind::kBigInt:
        out_ += big_integer_text(*value.bytes());
        return;
      case Kind::kReal:
        real(*value.real());
        return;
      case Kind::kText:
        string(*value.text());
        return;
      case Kind::kBytes:
        hex_object(*value.bytes());
        return;
      case Kind::kGlobal:
        global(value);
        return;
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kSet:
      case Kind::kFrozenSet:
        out_ += '[';
        path_.push_back({value, 0, true, false});
        return;
      case Kind::kDict:
        out_ += '{';
        path_.push_back({value, 0, false, false});
        return;
      default:
        open_object(value);
    }
  }

  void open_object(const Value& value) {
    if (tensors_) {
      if (const auto label = tensors_(value)) return tensor(*label);
    }
    if (const auto array = numpy_array(value))
      return array->is_scalar ? element(*array, 0, array->row_major()) : numpy(*array);
    if (value.kind() == Kind::kPersistent) {
      out_ += "{\"__persistent__\":";
      string(key_text(value.callable()));
      out_ += '}';
      return;
    }
    if (plain_object(value)) return;
    out_ += "{\"__class__\":";
    string(class_name(value));
    path_.push_back({value, 0, false, true});
  }

  static std::string_view class_name(const Value& value) {
    const std::string_view name = value.global_name();
    return name.empty() ? "<computed>" : name;
  }

  // Objects that say more in one word than by their arguments.
  bool plain_object(const Value& value) {
    const Value args = value.args();
    switch (known_of(value)) {
      case Known::kGetLayout:
        if (!args.at(0).text()) return false;
        pair("torch.layout", "name", *args.at(0).text());
        return true;
      case Known::kPath: {
        std::string path;
        for (size_t i = 0; i < args.size(); ++i) {
          const auto part = args.at(i).text();
          if (!part || path.size() > static_cast<size_t>(limit_)) return false;
          if (!path.empty() && path.back() != '/') path += '/';
          path += *part;
        }
        pair(class_name(value), "path", path);
        return true;
      }
      case Known::kComplex:
        if (args.size() != 2 || !args.at(0).real() || !args.at(1).real()) return false;
        out_ += "{\"__class__\":\"complex\",\"real\":";
        real(*args.at(0).real());
        out_ += ",\"imag\":";
        real(*args.at(1).real());
        out_ += '}';
        return true;
      default:
        return false;
    }
  }

  void pair(std::string_view cls, std::string_view name, std::string_view value) {
    out_ += "{\"__class__\":";
    string(cls);
    out_ += ',';
    string(name);
    out_ += ':';
    string(value);
    out_ += '}';
  }

  void global(const Value& value) {
    if (known_of(value) == Known::kDtype) return pair("torch.dtype", "name", value.global_name());
    out_ += "{\"__global__\":";
    string(value.global_name());
    out_ += '}';
  }

  void shape(std::span<const int64_t> sizes) {
    out_ += '[';
    for (size_t i = 0; i < sizes.size(); ++i) out_ += cat(i > 0 ? "," : "", sizes[i]);
    out_ += ']';
  }

  void tensor(const TensorLabel& label) {
    out_ += "{\"__tensor__\":";
    if (label.dtype.empty())
      out_ += "null";
    else
      string(label.dtype);
    out_ += ",\"shape\":";
    shape(label.shape);
    if (!label.refusal.empty()) {
      out_ += ",\"refused\":";
      string(label.refusal);
    }
    out_ += '}';
  }

  void numpy(const NumpyArray& array) {
    out_ += "{\"__ndarray__\":";
    string(info(array.dtype).torch);
    out_ += ",\"shape\":";
    shape(array.shape);
    if (array.numel() <= kMaxArrayValues) {
      const Bytes bytes = array.row_major();
      out_ += ",\"values\":[";
      for (int64_t i = 0; i < array.numel(); ++i) {
        if (i > 0) out_ += ',';
        element(array, i, bytes);
      }
      out_ += ']';
    }
    out_ += '}';
  }

  void element(const NumpyArray& array, int64_t i, const Bytes& bytes) {
    const uint8_t* p = bytes.data() + i * item_size(array.dtype);
    switch (array.dtype) {
      case DType::kBool:
        out_ += *p ? "true" : "false";
        return;
      case DType::kU8:
        out_ += cat(static_cast<unsigned>(*p));
        return;
      case DType::kI8:
        out_ += cat(static_cast<int>(static_cast<int8_t>(*p)));
        return;
      case DType::kU16:
        out_ += cat(load_le<uint16_t>(p));
        return;
      case DType::kI16:
        out_ += cat(load_le<int16_t>(p));
        return;
      case DType::kU32:
        out_ += cat(load_le<uint32_t>(p));
        return;
      case DType::kI32:
        out_ += cat(load_le<int32_t>(p));
        return;
      case DType::kU64:
        out_ += cat(load_le<uint64_t>(p));
        return;
      case DType::kI64:
        out_ += cat(load_le<int64_t>(p));
        return;
      case DType::kF16:
        real(half(load_le<uint16_t>(p)));
        return;
      case DType::kF32:
        single(load_le<float>(p));
        return;
      case DType::kF64:
        real(load_le<double>(p));
        return;
      case DType::kC64:
        complex(load_le<float>(p), load_le<float>(p + 4));
        return;
      case DType::kC128:
        complex(load_le<double>(p), load_le<double>(p + 8));
        return;
      default:
        out_ += "null";
    }
  }

  static double half(uint16_t bits) {
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
    if (exponent == 31) value = mantissa == 0 ? HUGE_VAL : std::nan("");
    return bits & 0x8000 ? -value : value;
  }

  void complex(double re, double im) {
    out_ += '[';
    real(re);
    out_ += ',';
    real(im);
    out_ += ']';
  }

  void real(double value) {
    const std::string text = real_text(value);
    if (std::isfinite(value))
      out_ += text;
    else
      string(text);
  }

  // The shortest text of a float is shorter than that of the double it becomes.
  void single(float value) {
    if (!std::isfinite(value)) return real(value);
    const std::string text = cat(value);
    out_ += text;
    if (text.find_first_of(".e") == std::string::npos) out_ += ".0";
  }

  void hex_object(ByteSpan bytes) {
    if (static_cast<int64_t>(bytes.size()) > limit_) Measure::throw_too_long(limit_);
    out_ += "{\"__bytes__\":\"";
    out_ += hex_text(bytes);
    out_ += "\"}";
  }

  void string(std::string_view text) {
    static constexpr char kHex[] = "0123456789abcdef";
    const ByteSpan bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const uint8_t c = bytes[i];
      if (c == '"' || c == '\\') {
        out_ += '\\';
        out_ += text[i++];
      } else if (c == '\n') {
        out_ += "\\n";
        ++i;
      } else if (c < 0x20 || c == 0x7f) {
        out_ += "\\u00";
        out_ += kHex[c >> 4];
        out_ += kHex[c & 15];
        ++i;
      } else if (c == 0xed && i + 2 < text.size() && bytes[i + 1] >= 0xa0) {
        const uint32_t code = next_code_point(bytes, i);
        out_ += cat("\\u", hex(code, 4));
      } else {
        out_ += text[i++];
      }
    }
    out_ += '"';
  }

  int64_t limit_;
  const TensorLookup& tensors_;
  std::string out_;
  std::vector<Step> path_;
};

}  // namespace

std::string to_json(const Value& value, const Limits& limits, const TensorLookup& tensors) {
  if (!value) return "null";
  if (!is_small(*value.document(), value.id())) Measure(*value.document(), limits.json_bytes).run(value.id());
  return Writer(limits, tensors).run(value);
}

}  // namespace uckpt::pickle
