#include "lib/tensor/dtype.h"

#include <array>

#include "lib/base/checked.h"

namespace uckpt {

namespace {

using enum DType;
using enum DTypeClass;

constexpr std::array<DTypeInfo, kDTypeCount> kTable = {{
    {kBool, "bool", "bool", "BOOL", 8, kTruth},
    {kU8, "u8", "uint8", "U8", 8, kUint},
    {kI8, "i8", "int8", "I8", 8, kInt},
    {kU16, "u16", "uint16", "U16", 16, kUint},
    {kI16, "i16", "int16", "I16", 16, kInt},
    {kU32, "u32", "uint32", "U32", 32, kUint},
    {kI32, "i32", "int32", "I32", 32, kInt},
    {kU64, "u64", "uint64", "U64", 64, kUint},
    {kI64, "i64", "int64", "I64", 64, kInt},
    {kF16, "fp16", "float16", "F16", 16, kFloat},
    {kBF16, "bf16", "bfloat16", "BF16", 16, kFloat},
    {kF32, "fp32", "float32", "F32", 32, kFloat},
    {kF64, "fp64", "float64", "F64", 64, kFloat},
    {kC32, "c32", "complex32", "", 32, kComplex},
    {kC64, "c64", "complex64", "C64", 64, kComplex},
    {kC128, "c128", "complex128", "", 128, kComplex},
    {kF8E4M3, "f8_e4m3", "float8_e4m3fn", "F8_E4M3", 8, kFloat},
    {kF8E5M2, "f8_e5m2", "float8_e5m2", "F8_E5M2", 8, kFloat},
    {kF8E4M3Fnuz, "f8_e4m3fnuz", "float8_e4m3fnuz", "F8_E4M3FNUZ", 8, kFloat},
    {kF8E5M2Fnuz, "f8_e5m2fnuz", "float8_e5m2fnuz", "F8_E5M2FNUZ", 8, kFloat},
    {kF8E8M0, "f8_e8m0", "float8_e8m0fnu", "F8_E8M0", 8, kFloat},
    {kF4, "f4", "float4_e2m1fn_x2", "F4", 4, kFloat},
    {kF6E2M3, "f6_e2m3", "", "F6_E2M3", 6, kFloat},
    {kF6E3M2, "f6_e3m2", "", "F6_E3M2", 6, kFloat},
}};

constexpr bool in_enum_order() {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<size_t>(kTable[i].dtype) != i) return false;
  return true;
}
static_assert(in_enum_order());

std::optional<DType> find(std::string_view name, std::string_view DTypeInfo::*column) {
  if (name.empty()) return std::nullopt;
  for (const DTypeInfo& row : kTable)
    if (row.*column == name) return row.dtype;
  return std::nullopt;
}

struct TorchAlias {
  std::string_view name;
  DType dtype;
};
constexpr TorchAlias kTorchAliases[] = {
    {"half", kF16}, {"float", kF32}, {"double", kF64}, {"short", kI16},    {"int", kI32},
    {"long", kI64}, {"chalf", kC32}, {"cfloat", kC64}, {"cdouble", kC128},
};

}  // namespace

const DTypeInfo& info(DType dtype) { return kTable[static_cast<size_t>(dtype)]; }

std::optional<DType> dtype_from_torch(std::string_view name) {
  for (const TorchAlias& alias : kTorchAliases)
    if (alias.name == name) return alias.dtype;
  return find(name, &DTypeInfo::torch);
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  return find(name, &DTypeInfo::safetensors);
}

std::optional<DType> dtype_from_name(std::string_view name) { return find(name, &DTypeInfo::name); }

std::optional<int64_t> bytes_of(DType dtype, int64_t numel) {
  const auto bits = checked_mul(numel, bits_of(dtype));
  if (!bits || *bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

}  // namespace uckpt
