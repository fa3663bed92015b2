#include "lib/ucl/words.h"

#include <vector>

namespace uckpt::ucl {

std::span<const std::string> dtype_names() {
  static const std::vector<std::string> names = {
      "bool",    "u8",      "i8",          "u16",         "i16",     "u32", "i32",     "u64",
      "i64",     "fp16",    "bf16",        "fp32",        "fp64",    "c32", "c64",     "c128",
      "f8_e4m3", "f8_e5m2", "f8_e4m3fnuz", "f8_e5m2fnuz", "f8_e8m0", "f4",  "f6_e2m3", "f6_e3m2"};
  return names;
}

std::string_view dtype_meant_by(std::string_view foreign) {
  struct Row {
    std::string_view foreign, ours;
  };
  static constexpr Row kRows[] = {
      {"bfloat16", "bf16"}, {"float16", "fp16"}, {"half", "fp16"}, {"f16", "fp16"},
      {"float32", "fp32"},  {"float", "fp32"},   {"f32", "fp32"},  {"float64", "fp64"},
      {"double", "fp64"},   {"f64", "fp64"},     {"int64", "i64"}, {"long", "i64"},
      {"int32", "i32"},     {"int", "i32"},      {"uint8", "u8"},  {"int8", "i8"}};
  for (const Row& row : kRows)
    if (row.foreign == foreign) return row.ours;
  return {};
}

}  // namespace uckpt::ucl
