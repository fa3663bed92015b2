#include "lib/kernels/arithmetic.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace uckpt::kernels {

namespace {

float float_of_half(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31,
                 mantissa = h & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) {
    const float tiny = static_cast<float>(mantissa) * 0x1p-24F;
    return sign ? -tiny : tiny;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Round to nearest even of the 24-bit mantissa to 11 bits, subnormals and overflow included.
uint16_t half_of_float(float f) {
  const auto bits = std::bit_cast<uint32_t>(f);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000) {                                              // subnormal: steps of 2^-24
    const float steps = std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p24F);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(steps));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

float float_of_bf16(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

uint16_t bf16_of_float(float f) {
  const auto bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct Half {
  using Stored = uint16_t;
  using Number = float;
  static float load(uint16_t x) { return float_of_half(x); }
  static uint16_t store(float x) { return half_of_float(x); }
};
struct BFloat {
  using Stored = uint16_t;
  using Number = float;
  static float load(uint16_t x) { return float_of_bf16(x); }
  static uint16_t store(float x) { return bf16_of_float(x); }
};
template <class Float>
struct Plain {
  using Stored = Float;
  using Number = Float;
  static Float load(Float x) { return x; }
  static Float store(Float x) { return x; }
};

template <class Type, class Operation>
void each(uint8_t* into, const uint8_t* other, int64_t count, Operation operation) {
  using Stored = typename Type::Stored;
  for (int64_t i = 0; i < count; ++i) {
    Stored a, b{};
    std::memcpy(&a, into + i * static_cast<int64_t>(sizeof a), sizeof a);
    if (other) std::memcpy(&b, other + i * static_cast<int64_t>(sizeof b), sizeof b);
    a = Type::store(operation(Type::load(a), Type::load(b)));
    std::memcpy(into + i * static_cast<int64_t>(sizeof a), &a, sizeof a);
  }
}

// `operation` is generic over float and double.
template <class Operation>
void run(uint8_t* into, const uint8_t* other, DType dtype, int64_t count, Operation operation) {
  switch (dtype) {
    case DType::kF16:
      return each<Half>(into, other, count, operation);
    case DType::kBF16:
      return each<BFloat>(into, other, count, operation);
    case DType::kF32:
      return each<Plain<float>>(into, other, count, operation);
    case DType::kF64:
      return each<Plain<double>>(into, other, count, operation);
    default:
      return;
  }
}

}  // namespace

bool has_arithmetic(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32 || dtype == DType::kF64;
}

void add(uint8_t* into, const uint8_t* other, DType dtype, int64_t count) {
  run(into, other, dtype, count, [](auto a, auto b) { return a + b; });
}

void divide(uint8_t* into, double by, DType dtype, int64_t count) {
  run(into, nullptr, dtype, count, [by](auto a, auto) { return a / static_cast<decltype(a)>(by); });
}

void scale(uint8_t* into, double factor, double summand, DType dtype, int64_t count) {
  run(into, nullptr, dtype, count, [&](auto a, auto) {
    if (factor != 1) a *= static_cast<decltype(a)>(factor);
    if (summand != 0) a += static_cast<decltype(a)>(summand);
    return a;
  });
}

}  // namespace uckpt::kernels
