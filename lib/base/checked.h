// Arithmetic on numbers from files: every overflow is noticed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace uckpt {

inline std::optional<int64_t> checked_add(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

inline std::optional<int64_t> checked_mul(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

// The product of sizes; nothing if one is negative or the product leaves 64 bits. 1 for a scalar.
// A zero makes the product zero however large the others are.
inline std::optional<int64_t> checked_product(std::span<const int64_t> sizes) {
  int64_t product = 1;
  bool overflow = false, zero = false;
  for (int64_t s : sizes) {
    if (s < 0) return std::nullopt;
    zero |= s == 0;
    if (!overflow) overflow = __builtin_mul_overflow(product, s, &product);
  }
  if (zero) return 0;
  if (overflow) return std::nullopt;
  return product;
}

// [offset, offset + length) lies inside [0, size)?
inline bool range_inside(int64_t offset, int64_t length, int64_t size) {
  return offset >= 0 && length >= 0 && offset <= size && length <= size - offset;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace uckpt
