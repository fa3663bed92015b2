// Element types: one table that knows every name and size.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace uckpt {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC32,
  kC64,
  kC128,  // complex of two f16, f32, f64
  kF8E4M3,
  kF8E5M2,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kF8E8M0,  // e4m3 is the "fn" kind: no infinities
  kF4,
  kF6E2M3,
  kF6E3M2,  // under a byte: moved in whole bytes
};
inline constexpr int kDTypeCount = 24;

enum class DTypeClass : uint8_t { kTruth, kInt, kUint, kFloat, kComplex };

struct DTypeInfo {
  DType dtype;
  std::string_view name;         // what we print: "bf16"
  std::string_view torch;        // "bfloat16"; empty if torch has none
  std::string_view safetensors;  // "BF16"; empty if the format has none
  int bits;
  DTypeClass kind;
};

const DTypeInfo& info(DType dtype);
inline int bits_of(DType dtype) { return info(dtype).bits; }
// Bytes an element takes; 0 for types under a byte.
inline int item_size(DType dtype) { return bits_of(dtype) / 8; }
inline std::string_view name_of(DType dtype) { return info(dtype).name; }
inline bool is_float(DType dtype) { return info(dtype).kind == DTypeClass::kFloat; }

std::optional<DType> dtype_from_torch(std::string_view name);        // "bfloat16", "half"
std::optional<DType> dtype_from_safetensors(std::string_view name);  // "BF16"
std::optional<DType> dtype_from_name(std::string_view name);         // "bf16"

// Bytes of `numel` elements, or nothing if that is no whole number of bytes or overflows.
std::optional<int64_t> bytes_of(DType dtype, int64_t numel);

}  // namespace uckpt
