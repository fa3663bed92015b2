#include "lib/formats/megatron/rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lib/base/bytes.h"

namespace uckpt::megatron {

namespace {

float from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float magnitude = exponent == 31  ? INFINITY
                          : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                          : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

float from_bfloat(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  return std::bit_cast<float>(wide);
}

}  // namespace

std::optional<std::vector<float>> sample(const ByteSource& source, int64_t offset, DType dtype,
                                         int64_t numel) {
  const int64_t size = item_size(dtype);
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) return std::nullopt;
  const Bytes bytes = source.read_range(offset, numel * size);
  std::vector<float> out;
  for (int64_t i = 0; i < numel; ++i) {
    const uint8_t* at = bytes.data() + i * size;
    if (dtype == DType::kF32) {
      out.push_back(load_le<float>(at));
    } else {
      out.push_back(dtype == DType::kBF16 ? from_bfloat(load_le<uint16_t>(at))
                                          : from_half(load_le<uint16_t>(at)));
    }
  }
  return out;
}

bool is_rounding(float weight, float master, DType dtype) {
  if (std::isnan(weight) || std::isnan(master) || std::isinf(weight)) return true;
  const float step = dtype == DType::kF32 ? 0 : dtype == DType::kBF16 ? 0x1p-8f : 0x1p-11f;
  const float floor = dtype == DType::kF16 ? 0x1p-25f : 0;
  return std::fabs(weight - master) <= std::max(std::fabs(master) * step, floor);
}

}  // namespace uckpt::megatron
