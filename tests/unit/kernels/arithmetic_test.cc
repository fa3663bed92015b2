#include "lib/kernels/arithmetic.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "lib/kernels/elements.h"

namespace uckpt::kernels {
namespace {

template <class T>
uint8_t* bytes(T& x) {
  return reinterpret_cast<uint8_t*>(&x);
}

TEST_CASE("arithmetic: each operation rounds to the element's own type") {
  float a = 1, b = 2.5F;
  add(bytes(a), bytes(b), DType::kF32, 1);
  CHECK(a == 3.5F);
  divide(bytes(a), 3, DType::kF32, 1);
  CHECK(a == 3.5F / 3.0F);
  double d = 3;
  scale(bytes(d), 0.5, -1, DType::kF64, 1);
  CHECK(d == 0.5);
  // bf16: 256 + 1 has no representation, and ties go to even.
  uint16_t big = 0x4380, one = 0x3f80;
  add(bytes(big), bytes(one), DType::kBF16, 1);
  CHECK(big == 0x4380);
  // f16: 2048 + 1 ties to 2048, 2048 + 3 to 2052; 65504 + 65504 is infinite; 2^-24 / 2 ties to 0.
  uint16_t h = 0x6800, h1 = 0x3c00, h3 = 0x4200, top = 0x7bff, tiny = 0x0001;
  add(bytes(h), bytes(h1), DType::kF16, 1);
  CHECK(h == 0x6800);
  add(bytes(h), bytes(h3), DType::kF16, 1);
  CHECK(h == 0x6802);
  uint16_t twice = top;
  add(bytes(twice), bytes(top), DType::kF16, 1);
  CHECK(twice == 0x7c00);
  divide(bytes(tiny), 2, DType::kF16, 1);
  CHECK(tiny == 0);
  CHECK_FALSE(has_arithmetic(DType::kI32));
}

TEST_CASE("arithmetic: adding zero keeps every 16-bit number, as the comparing kernel rounds it") {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      auto x = static_cast<uint16_t>(bits), zero = uint16_t{0};
      add(bytes(x), bytes(zero), dtype, 1);
      const auto before = static_cast<uint16_t>(bits);
      const bool same =
          compare_rounded(bytes(x), dtype, reinterpret_cast<const uint8_t*>(&before), dtype, 1).count == 0;
      CHECK((same || bits == 0x8000));  // -0 + 0 is 0
    }
  }
}

}  // namespace
}  // namespace uckpt::kernels
