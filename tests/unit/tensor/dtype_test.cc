#include "lib/tensor/dtype.h"

#include <doctest/doctest.h>

using namespace uckpt;

TEST_CASE("names and sizes of element types") {
  CHECK(dtype_from_torch("bfloat16") == DType::kBF16);
  CHECK(dtype_from_torch("half") == DType::kF16);
  CHECK(!dtype_from_torch("Bfloat16"));
  CHECK(dtype_from_safetensors("F8_E4M3") == DType::kF8E4M3);
  CHECK(!dtype_from_safetensors(""));
  CHECK(dtype_from_name("fp32") == DType::kF32);
  CHECK(bytes_of(DType::kF4, 4) == 2);
  CHECK(!bytes_of(DType::kF4, 3));
  CHECK(!bytes_of(DType::kF64, INT64_MAX / 8));
  for (int i = 0; i < kDTypeCount; ++i)
    CHECK(dtype_from_name(name_of(static_cast<DType>(i))) == static_cast<DType>(i));
}
