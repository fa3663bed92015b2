// The values that a pickler writes at once: numbers, texts, names, and what PyTorch makes tensors of.
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/globals.h"
#include "lib/pickle/pickler.h"
#include "lib/pickle/python2_names.h"

namespace uckpt::pickle {

namespace {

constexpr size_t kShortText = 256;

// Bytes of a little-endian two's-complement integer that say more than the sign.
size_t significant(ByteSpan bytes) {
  size_t size = bytes.size();
  while (size > 1 && ((bytes[size - 1] == 0 && bytes[size - 2] < 0x80) ||
                      (bytes[size - 1] == 0xff && bytes[size - 2] >= 0x80)))
    --size;
  return size == 1 && bytes[0] == 0 ? 0 : size;
}

std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void Pickler::sized(Op code, std::string_view bytes) {
  if (bytes.size() > std::numeric_limits<uint32_t>::max())
    throw refused("limit.string_bytes",
                  cat("expected less than 4 GiB of text in one value, found ", bytes.size(), " bytes"));
  op(code);
  number(static_cast<uint32_t>(bytes.size()));
  out_.insert(out_.end(), bytes.begin(), bytes.end());
}

void Pickler::none() {
  start();
  op(Op::kNone);
  scalar();
}

void Pickler::boolean(bool value) {
  start();
  op(value ? Op::kNewTrue : Op::kNewFalse);
  scalar();
}

void Pickler::integer(int64_t value) {
  if (value != static_cast<int32_t>(value)) {
    uint8_t bytes[sizeof value];
    store_le(bytes, value);
    return long_integer(bytes);
  }
  start();
  if (value >= 0 && value <= 0xff) {
    op(Op::kBinInt1);
    number(static_cast<uint8_t>(value));
  } else if (value >= 0 && value <= 0xffff) {
    op(Op::kBinInt2);
    number(static_cast<uint16_t>(value));
  } else {
    op(Op::kBinInt);
    number(static_cast<int32_t>(value));
  }
  scalar();
}

void Pickler::big_integer(ByteSpan twos_complement) {
  const ByteSpan bytes = twos_complement.first(significant(twos_complement));
  if (bytes.size() > sizeof(int64_t)) return long_integer(bytes);
  uint64_t value = !bytes.empty() && bytes.back() >= 0x80 ? ~uint64_t{0} : 0;
  if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
  integer(static_cast<int64_t>(value));
}

void Pickler::long_integer(ByteSpan twos_complement) {
  const std::string_view bytes = as_text(twos_complement.first(significant(twos_complement)));
  start();
  if (bytes.size() <= 0xff) {
    op(Op::kLong1);
    out_.push_back(static_cast<uint8_t>(bytes.size()));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  } else {
    sized(Op::kLong4, bytes);
  }
  scalar();
}

void Pickler::real(double value) {
  start();
  op(Op::kBinFloat);
  number(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
  scalar();
}

void Pickler::plain_text(std::string_view wtf8) {
  start();
  sized(Op::kBinUnicode, wtf8);
  push(put());
  done();
}

void Pickler::text(std::string_view wtf8) {
  if (wtf8.size() > kShortText) return plain_text(wtf8);
  const auto [found, is_new] = texts_.try_emplace(std::string(wtf8), next_memo_);
  if (!is_new) return again(found->second);
  plain_text(wtf8);
}

void Pickler::latin1(ByteSpan bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const uint8_t byte : bytes) {
    if (byte < 0x80) {
      text += static_cast<char>(byte);
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  plain_text(text);
}

void Pickler::bytes(ByteSpan value) {
  begin_call();
  global("_codecs", "encode");
  begin_tuple(2);
  latin1(value);
  text("latin1");
  end_tuple();
  end_call();
}

void Pickler::byte_array(ByteSpan value) {
  begin_call();
  global("builtins", "bytearray");
  begin_tuple(value.empty() ? 0 : 1);
  if (!value.empty()) bytes(value);
  end_tuple();
  end_call();
}

void Pickler::global(std::string_view module, std::string_view name) {
  std::string line = cat(module, '\n', name);
  if (const auto found = globals_.find(line); found != globals_.end()) return again(found->second);
  const Global global = make_global(module, name, 4);
  if (module.find('\n') != module.npos || name.find('\n') != name.npos)
    throw refused("pickle.global", cat(escape(global.full), ": a name with a line break cannot be written"));
  if (global.trust == GlobalClass::kDangerous)
    throw refused("pickle.dangerous",
                  cat(escape(global.full), ": it runs what it likes, and is not written"));
  if (is_nested_class(module, name)) {
    nested_class(module, name);
  } else {
    const auto place = for_protocol_2({module, name});
    if (!place)
      throw refused(
          "pickle.global",
          cat(escape(global.full), ": in pickle protocol 2 that is the name of something of Python 2's"));
    start();
    global_line(place->module, place->name);
    push(put());
    done();
  }
  globals_.emplace(std::move(line), last_);
}

void Pickler::global_line(std::string_view module, std::string_view name) {
  op(Op::kGlobal);
  for (std::string_view part : {module, name}) {
    out_.insert(out_.end(), part.begin(), part.end());
    out_.push_back('\n');
  }
}

// getattr(getattr(Outer, "Inner"), "Mode"): protocol 2 has no other words for it.
void Pickler::nested_class(std::string_view module, std::string_view name) {
  std::vector<size_t> dots;
  for (size_t dot = name.rfind('.'); dot != name.npos; dot = dot > 0 ? name.rfind('.', dot - 1) : name.npos)
    dots.push_back(dot);
  for (size_t i = 0; i < dots.size(); ++i) {
    begin_call();
    const std::string getattr = "builtins\ngetattr";
    if (const auto found = globals_.find(getattr); found != globals_.end()) {
      again(found->second);
    } else {
      start();
      global_line("builtins", "getattr");
      push(put());
      done();
      globals_.emplace(getattr, last_);
    }
    begin_tuple(2);
  }
  global(module, name.substr(0, dots.back()));
  for (size_t i = dots.size(); i-- > 0;) {
    const size_t begin = dots[i] + 1, end = i > 0 ? dots[i - 1] : name.size();
    text(name.substr(begin, end - begin));
    end_tuple();
    end_call();
  }
}

void Pickler::integers(std::span<const int64_t> values) {
  begin_tuple(values.size());
  for (const int64_t value : values) integer(value);
  end_tuple();
}

void Pickler::storage(DType dtype, std::string_view key, int64_t numel) {
  const std::string_view cls = storage_class(dtype);
  const auto size = cls.empty() ? bytes_of(dtype, numel) : numel;
  if (!size) throw std::logic_error("pickler: a storage of no whole number of bytes");
  begin_persistent();
  begin_tuple(5);
  text("storage");
  global(cls.empty() ? "torch.storage" : "torch", cls.empty() ? "UntypedStorage" : cls);
  text(key);
  text("cpu");
  integer(*size);
  end_tuple();
  end_persistent();
}

void Pickler::tensor(const TensorText& tensor) {
  const bool typed = !storage_class(tensor.dtype).empty();
  if (!typed && (item_size(tensor.dtype) == 0 || info(tensor.dtype).torch.empty()))
    throw refused("tensor.dtype", cat("torch has no tensors of ", name_of(tensor.dtype)));
  begin_call();
  global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  begin_tuple(typed ? 6 : 7);
  storage(tensor.dtype, tensor.key, tensor.storage_numel);
  integer(tensor.offset);
  integers(tensor.shape);
  integers(tensor.stride);
  boolean(tensor.requires_grad);
  begin_dict(DictType::kOrderedDict);  // hooks
  end_dict();
  if (!typed) global("torch", info(tensor.dtype).torch);
  end_tuple();
  end_call();
}

}  // namespace uckpt::pickle
