#include "lib/kernels/cast.h"

#include <algorithm>
#include <cstring>

#include "lib/kernels/floats.h"

namespace uckpt::kernels {

namespace {

// What is stored, and its number: f64's is a double, all others' a float.
template <class Format>
struct Narrow {
  using Stored = typename Format::Stored;
  static float load(Stored x) { return widen<Format>(x); }
  template <class Number>
  static Stored store(Number x) {
    return narrow<Format>(x);
  }
};
template <class Float>
struct Plain {
  using Stored = Float;
  static Float load(Float x) { return x; }
  template <class Number>
  static Float store(Number x) {
    return static_cast<Float>(x);
  }
};

// Calls `function` with the type's reading and writing; false if it is none of ours.
template <class Function>
bool with_type(DType dtype, Function function) {
  switch (dtype) {
    case DType::kF64:
      function(Plain<double>());
      return true;
    case DType::kF32:
      function(Plain<float>());
      return true;
    case DType::kF16:
      function(Narrow<Half>());
      return true;
    case DType::kBF16:
      function(Narrow<BFloat>());
      return true;
    case DType::kF8E4M3:
      function(Narrow<E4M3>());
      return true;
    case DType::kF8E5M2:
      function(Narrow<E5M2>());
      return true;
    default:
      return false;
  }
}

// By blocks of a fixed length between arrays that are known not to overlap, so that the compiler vectorises.
template <class From, class To>
void cast_all(const uint8_t* src, uint8_t* dst, int64_t count) {
  constexpr int64_t kBlock = 64;
  typename From::Stored from[kBlock] = {};
  typename To::Stored to[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const auto n = static_cast<size_t>(std::min(kBlock, count - i));
    std::memcpy(from, src + i * static_cast<int64_t>(sizeof from[0]), n * sizeof from[0]);
    for (int64_t k = 0; k < kBlock; ++k) to[k] = To::store(From::load(from[k]));
    std::memcpy(dst + i * static_cast<int64_t>(sizeof to[0]), to, n * sizeof to[0]);
  }
}

}  // namespace

bool can_cast(DType from, DType to) {
  const auto ours = [](DType dtype) { return with_type(dtype, [](auto) {}); };
  return ours(from) && ours(to);
}

void cast(const uint8_t* src, DType src_dtype, uint8_t* dst, DType dst_dtype, int64_t count) {
  if (src_dtype == dst_dtype) {
    std::memcpy(dst, src, static_cast<size_t>(count) * static_cast<size_t>(item_size(src_dtype)));
    return;
  }
  with_type(src_dtype, [&]<class From>(From) {
    with_type(dst_dtype, [&]<class To>(To) { cast_all<From, To>(src, dst, count); });
  });
}

}  // namespace uckpt::kernels
