#include "lib/kernels/arithmetic.h"

#include <cstring>

#include "lib/kernels/floats.h"

namespace uckpt::kernels {

namespace {

template <class Format>
struct Narrow {
  using Stored = typename Format::Stored;
  static float load(Stored x) { return widen<Format>(x); }
  static Stored store(float x) { return narrow<Format>(x); }
};
template <class Float>
struct Plain {
  using Stored = Float;
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
      return each<Narrow<Half>>(into, other, count, operation);
    case DType::kBF16:
      return each<Narrow<BFloat>>(into, other, count, operation);
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
