#include "lib/pickle/numpy.h"

#include <algorithm>
#include <cstring>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"

namespace uckpt::pickle {

namespace {

constexpr size_t kMaxRank = 64;  // numpy's own

struct ElementType {
  DType dtype{};
  bool swapped = false;
};

std::optional<DType> dtype_of_code(std::string_view code) {
  static constexpr std::pair<std::string_view, DType> kCodes[] = {
      {"b1", DType::kBool}, {"u1", DType::kU8},   {"i1", DType::kI8},  {"u2", DType::kU16},
      {"i2", DType::kI16},  {"u4", DType::kU32},  {"i4", DType::kI32}, {"u8", DType::kU64},
      {"i8", DType::kI64},  {"f2", DType::kF16},  {"f4", DType::kF32}, {"f8", DType::kF64},
      {"c8", DType::kC64},  {"c16", DType::kC128}};
  for (const auto& [name, dtype] : kCodes)
    if (name == code) return dtype;
  return std::nullopt;
}

// numpy.dtype(code, align, copy) built with (version, byte order, …).
std::optional<ElementType> element_type(const Value& value) {
  if (value.kind() != Kind::kCall || known_of(value) != Known::kNumpyDtype) return std::nullopt;
  const auto code = value.args().at(0).text();
  const auto dtype = code ? dtype_of_code(*code) : std::nullopt;
  if (!dtype) return std::nullopt;
  const Value order = value.state().at(1);
  if (!value.state()) return ElementType{*dtype, false};
  if (order.text() == ">") return ElementType{*dtype, item_size(*dtype) > 1};
  if (order.text() == "<" || order.text() == "|" || order.text() == "=") return ElementType{*dtype, false};
  throw refused("numpy.byte_order", cat("expected the byte order of a numpy type, found ",
                                        order.text() ? escape(*order.text()) : "none"));
}

// Bytes, or the ASCII text that Python 2 bytes may have become.
std::optional<ByteSpan> raw_bytes(const Value& value) {
  if (value.kind() == Kind::kBytes) return value.bytes();
  if (const auto text = value.text())
    return ByteSpan(reinterpret_cast<const uint8_t*>(text->data()), text->size());
  return std::nullopt;
}

void check_bytes(const NumpyArray& array) {
  const auto numel = checked_product(array.shape);
  const auto bytes = numel ? bytes_of(array.dtype, *numel) : std::nullopt;
  if (bytes != static_cast<int64_t>(array.bytes.size()))
    throw refused("numpy.size",
                  cat("a numpy array of shape ", shape_text(array.shape), " and type ", name_of(array.dtype),
                      ": expected ", bytes ? cat(*bytes) : "a size within 64 bits", " bytes, found ",
                      array.bytes.size()));
}

std::vector<int64_t> read_shape(const Value& value) {
  if (value.kind() == Kind::kInt) return {*value.integer()};
  if (value.kind() != Kind::kTuple || value.size() > kMaxRank)
    throw refused("numpy.shape",
                  "expected the shape of a numpy array as a tuple of integers, found something else");
  std::vector<int64_t> shape;
  for (size_t i = 0; i < value.size(); ++i) {
    const auto size = value.at(i).integer();
    if (!size || *size < 0)
      throw refused("numpy.shape",
                    "expected sizes of a numpy array as integers from 0, found something else");
    shape.push_back(*size);
  }
  return shape;
}

std::optional<NumpyArray> make(const Value& type, const Value& shape, const Value& bytes, bool fortran) {
  const auto element = element_type(type);
  const auto raw = raw_bytes(bytes);
  if (!element || !raw) return std::nullopt;  // objects come as a list
  NumpyArray array{element->dtype, read_shape(shape), *raw, fortran, element->swapped, false};
  check_bytes(array);
  return array;
}

}  // namespace

int64_t NumpyArray::numel() const { return checked_product(shape).value_or(0); }

Bytes NumpyArray::row_major() const {
  Bytes out(bytes.begin(), bytes.end());
  const auto item = static_cast<size_t>(item_size(dtype));
  if (fortran && shape.size() > 1 && !bytes.empty()) {
    std::vector<int64_t> index(shape.size(), 0);
    for (size_t to = 0; to < out.size(); to += item) {
      size_t from = 0;
      for (size_t d = shape.size(); d-- > 0;)
        from = from * static_cast<size_t>(shape[d]) + static_cast<size_t>(index[d]);
      std::memcpy(out.data() + to, bytes.data() + from * item, item);
      for (size_t d = shape.size(); d-- > 0;) {
        if (++index[d] < shape[d]) break;
        index[d] = 0;
      }
    }
  }
  if (swapped) {
    const size_t part = info(dtype).kind == DTypeClass::kComplex ? item / 2 : item;
    for (size_t at = 0; at < out.size(); at += part)
      std::reverse(out.begin() + static_cast<ptrdiff_t>(at), out.begin() + static_cast<ptrdiff_t>(at + part));
  }
  return out;
}

std::optional<NumpyArray> numpy_array(const Value& value) {
  if (value.kind() != Kind::kCall) return std::nullopt;
  const Value args = value.args();
  switch (known_of(value)) {
    case Known::kNumpyReconstruct: {  // BUILD (version, shape, dtype, is_fortran, bytes); the version is
                                      // optional
      const Value state = value.state();
      if (state.kind() != Kind::kTuple || (state.size() != 4 && state.size() != 5)) return std::nullopt;
      const size_t first = state.size() - 4;
      return make(state.at(first + 1), state.at(first), state.at(first + 3),
                  state.at(first + 2).boolean().value_or(false));
    }
    case Known::kNumpyFromBuffer:  // (bytes, dtype, shape, order)
      if (args.size() != 4) return std::nullopt;
      return make(args.at(1), args.at(2), args.at(0), args.at(3).text() == "F");
    case Known::kNumpyScalar: {  // (dtype, bytes)
      const auto element = element_type(args.at(0));
      const auto raw = args.size() == 2 ? raw_bytes(args.at(1)) : std::nullopt;
      if (!element || !raw) return std::nullopt;
      NumpyArray array{element->dtype, {}, *raw, false, element->swapped, true};
      check_bytes(array);
      return array;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace uckpt::pickle
