#include "lib/formats/npy.h"

#include <cmath>
#include <limits>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {
namespace {

// Where a small float keeps its infinities and NaNs.
enum class Special : uint8_t {
  kIeee,       // largest exponent: infinity, or NaN
  kTopNan,     // all ones but for the sign: NaN; no infinities
  kMinusZero,  // minus zero: NaN; no infinities
};

struct SmallFormat {
  int exponent_bits, mantissa_bits, bias;
  Special special;
};

SmallFormat format_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return {8, 7, 127, Special::kIeee};
    case DType::kF8E4M3:
      return {4, 3, 7, Special::kTopNan};
    case DType::kF8E5M2:
      return {5, 2, 15, Special::kIeee};
    case DType::kF8E4M3Fnuz:
      return {4, 3, 8, Special::kMinusZero};
    case DType::kF8E5M2Fnuz:
      return {5, 2, 16, Special::kMinusZero};
    default:
      return {5, 10, 15, Special::kIeee};  // the half
  }
}

struct NpyType {
  std::string_view descr;
  int item_bytes;
};

bool numpy_lacks(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
    case DType::kC32:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz:
    case DType::kF8E8M0:
    case DType::kF4:
    case DType::kF6E2M3:
    case DType::kF6E3M2:
      return true;
    default:
      return false;
  }
}

NpyType own_type(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return {"|b1", 1};
    case DType::kU8:
      return {"|u1", 1};
    case DType::kI8:
      return {"|i1", 1};
    case DType::kU16:
      return {"<u2", 2};
    case DType::kI16:
      return {"<i2", 2};
    case DType::kU32:
      return {"<u4", 4};
    case DType::kI32:
      return {"<i4", 4};
    case DType::kU64:
      return {"<u8", 8};
    case DType::kI64:
      return {"<i8", 8};
    case DType::kF16:
      return {"<f2", 2};
    case DType::kF32:
      return {"<f4", 4};
    case DType::kF64:
      return {"<f8", 8};
    case DType::kC64:
      return {"<c8", 8};
    case DType::kC128:
      return {"<c16", 16};
    default:
      return item_size(dtype) == 2   ? NpyType{"<u2", 2}
             : item_size(dtype) == 4 ? NpyType{"<u4", 4}
                                     : NpyType{"|u1", 1};
  }
}

NpyType wide_type(DType dtype) { return dtype == DType::kC32 ? NpyType{"<c8", 8} : NpyType{"<f4", 4}; }

std::string header_text(std::string_view descr, const Shape& shape) {
  std::string tuple = "(";
  for (int64_t size : shape) tuple += cat(size, ", ");
  if (shape.size() > 1) tuple.resize(tuple.size() - 2);
  if (shape.size() == 1) tuple.pop_back();
  std::string dict = cat("{'descr': '", descr, "', 'fortran_order': False, 'shape': ", tuple, "), }");
  // Magic, version 1.0 and a 16-bit length; the values begin at a multiple of 64 bytes.
  constexpr size_t kFixed = 10, kAlign = 64;
  dict.append((kAlign - (kFixed + dict.size() + 1) % kAlign) % kAlign, ' ');
  dict += '\n';
  uint8_t length[2];
  store_le<uint16_t>(length, static_cast<uint16_t>(dict.size()));
  return cat("\x93NUMPY\x01", '\0', static_cast<char>(length[0]), static_cast<char>(length[1]), dict);
}

}  // namespace

float small_float(DType dtype, uint32_t bits) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (dtype == DType::kF8E8M0) return bits == 0xff ? kNan : std::ldexp(1.0F, static_cast<int>(bits) - 127);
  const SmallFormat f = format_of(dtype);
  const uint32_t mantissa = bits & ((1u << f.mantissa_bits) - 1);
  const uint32_t top = (1u << f.exponent_bits) - 1;
  const uint32_t exponent = bits >> f.mantissa_bits & top;
  const bool negative = (bits >> (f.mantissa_bits + f.exponent_bits) & 1) != 0;
  if (f.special == Special::kMinusZero && negative && exponent == 0 && mantissa == 0) return kNan;
  if (f.special == Special::kTopNan && exponent == top && mantissa + 1 == 1u << f.mantissa_bits) return kNan;
  float value;
  if (f.special == Special::kIeee && exponent == top) {
    value = mantissa == 0 ? std::numeric_limits<float>::infinity() : kNan;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(mantissa), 1 - f.bias - f.mantissa_bits);
  } else {
    value = std::ldexp(static_cast<float>(mantissa | 1u << f.mantissa_bits),
                       static_cast<int>(exponent) - f.bias - f.mantissa_bits);
  }
  return negative ? -value : value;
}

NpyWriter::NpyWriter(DType dtype, const Shape& shape, bool raw)
    : dtype_(dtype), widens_(numpy_lacks(dtype) && !raw) {
  const int64_t numel = numel_of(shape);
  if (item_size(dtype) == 0) {
    if (!raw) {
      throw trouble("npy.dtype", cat("NumPy has no type of ", bits_of(dtype), " bits for ", name_of(dtype)))
          .hint("--raw writes the packed bytes");
    }
    data_bytes_ = bytes_of(dtype, numel).value_or(0);
    header_ = header_text("|u1", {data_bytes_});
    return;
  }
  const NpyType type = widens_ ? wide_type(dtype) : own_type(dtype);
  data_bytes_ = numel * type.item_bytes;
  header_ = header_text(type.descr, shape);
}

void NpyWriter::widen(const uint8_t* element) {
  const auto put = [&](float value) {
    uint8_t bytes[sizeof value];
    store_le(bytes, value);
    out_.insert(out_.end(), bytes, bytes + sizeof value);
  };
  if (dtype_ == DType::kBF16) {
    put(std::bit_cast<float>(uint32_t{load_le<uint16_t>(element)} << 16));
  } else if (dtype_ == DType::kC32) {
    put(small_float(DType::kF16, load_le<uint16_t>(element)));
    put(small_float(DType::kF16, load_le<uint16_t>(element + 2)));
  } else {
    put(small_float(dtype_, *element));
  }
}

ByteSpan NpyWriter::convert(ByteSpan bytes) {
  if (!widens_) return bytes;
  const auto item = static_cast<size_t>(item_size(dtype_));
  out_.clear();
  while (!carry_.empty() && !bytes.empty()) {
    carry_.push_back(bytes.front());
    bytes = bytes.subspan(1);
    if (carry_.size() < item) continue;
    widen(carry_.data());
    carry_.clear();
  }
  while (bytes.size() >= item) {
    widen(bytes.data());
    bytes = bytes.subspan(item);
  }
  carry_.insert(carry_.end(), bytes.begin(), bytes.end());
  return out_;
}

}  // namespace uckpt
