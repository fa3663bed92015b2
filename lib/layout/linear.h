// Sizes that are known, linear in one unknown, or beyond that: what the solver of sizes computes with.
#pragma once

#include <cstdint>
#include <optional>

namespace uckpt::layout {

using Unknown = uint32_t;
inline constexpr Unknown kNobody = 0xffffffff;

// A reduced fraction; the denominator is positive.
struct Fraction {
  int64_t over = 0, under = 1;
  bool is_whole() const { return under == 1; }
  bool operator==(const Fraction&) const = default;
};

// constant + slope · unknown. `kBeyond`: two unknowns, a product of unknowns, or more than 64 bits.
class Linear {
 public:
  static Linear known(int64_t value) { return Linear({value, 1}, {}, kNobody, false); }
  static Linear of(Unknown unknown) { return Linear({}, {1, 1}, unknown, false); }
  static Linear beyond() { return Linear({}, {}, kNobody, true); }

  bool is_beyond() const { return beyond_; }
  bool is_known() const { return !beyond_ && unknown_ == kNobody; }
  // The value of a known one, if it is a whole number.
  std::optional<int64_t> value() const;
  // The same, whole or not.
  std::optional<Fraction> fraction() const { return is_known() ? std::optional(constant_) : std::nullopt; }
  Unknown unknown() const { return unknown_; }

  friend Linear operator+(const Linear& a, const Linear& b);
  friend Linear operator-(const Linear& a, const Linear& b);
  friend Linear operator*(const Linear& a, const Linear& b);
  friend Linear operator/(const Linear& a, const Linear& b);  // beyond where b is 0 or not known

  // The one value of the unknown with which `a` equals `b`. Nothing if neither, or more than one unknown, is
  // in them, or every value would do; a fraction where no whole number does.
  static std::optional<Fraction> solve(const Linear& a, const Linear& b, Unknown& unknown);

 private:
  Linear(Fraction constant, Fraction slope, Unknown unknown, bool beyond)
      : constant_(constant), slope_(slope), unknown_(unknown), beyond_(beyond) {}
  static Linear make(std::optional<Fraction> constant, std::optional<Fraction> slope, Unknown unknown);

  Fraction constant_, slope_;
  Unknown unknown_;
  bool beyond_;
};

}  // namespace uckpt::layout
