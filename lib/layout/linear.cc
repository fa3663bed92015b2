#include "lib/layout/linear.h"

#include <numeric>

#include "lib/base/checked.h"

namespace uckpt::layout {

namespace {

using Maybe = std::optional<Fraction>;

Maybe reduced(std::optional<int64_t> over, std::optional<int64_t> under) {
  if (!over || !under || *under == 0 || *over == INT64_MIN || *under == INT64_MIN) return std::nullopt;
  const int64_t common = std::gcd(*over, *under) * (*under < 0 ? -1 : 1);
  return Fraction{*over / common, *under / common};
}

Maybe add(const Fraction& a, const Fraction& b) {
  const auto x = checked_mul(a.over, b.under), y = checked_mul(b.over, a.under);
  return x && y ? reduced(checked_add(*x, *y), checked_mul(a.under, b.under)) : std::nullopt;
}
Maybe multiply(const Fraction& a, const Fraction& b) {
  return reduced(checked_mul(a.over, b.over), checked_mul(a.under, b.under));
}
Maybe divide(const Fraction& a, const Fraction& b) {
  return reduced(checked_mul(a.over, b.under), checked_mul(a.under, b.over));
}
Fraction negative(const Fraction& a) { return {-a.over, a.under}; }

}  // namespace

Linear Linear::make(std::optional<Fraction> constant, std::optional<Fraction> slope, Unknown unknown) {
  if (!constant || !slope) return beyond();
  return Linear(*constant, *slope, slope->over == 0 ? kNobody : unknown, false);
}

std::optional<int64_t> Linear::value() const {
  if (!is_known() || !constant_.is_whole()) return std::nullopt;
  return constant_.over;
}

Linear operator+(const Linear& a, const Linear& b) {
  if (a.beyond_ || b.beyond_) return Linear::beyond();
  if (a.unknown_ != kNobody && b.unknown_ != kNobody && a.unknown_ != b.unknown_) return Linear::beyond();
  return Linear::make(add(a.constant_, b.constant_), add(a.slope_, b.slope_),
                      a.unknown_ != kNobody ? a.unknown_ : b.unknown_);
}

Linear operator-(const Linear& a, const Linear& b) {
  if (b.beyond_) return Linear::beyond();
  return a + Linear(negative(b.constant_), negative(b.slope_), b.unknown_, false);
}

Linear operator*(const Linear& a, const Linear& b) {
  if (a.is_known() && a.constant_.over == 0) return a;
  if (b.is_known() && b.constant_.over == 0) return b;
  if (a.beyond_ || b.beyond_ || (a.unknown_ != kNobody && b.unknown_ != kNobody)) return Linear::beyond();
  const Linear& factor = a.unknown_ == kNobody ? a : b;
  const Linear& other = a.unknown_ == kNobody ? b : a;
  return Linear::make(multiply(factor.constant_, other.constant_), multiply(factor.constant_, other.slope_),
                      other.unknown_);
}

Linear operator/(const Linear& a, const Linear& b) {
  if (a.beyond_ || !b.is_known()) return Linear::beyond();
  return Linear::make(divide(a.constant_, b.constant_), divide(a.slope_, b.constant_), a.unknown_);
}

std::optional<Fraction> Linear::solve(const Linear& a, const Linear& b, Unknown& unknown) {
  const Linear difference = a - b;
  if (difference.beyond_ || difference.unknown_ == kNobody) return std::nullopt;
  unknown = difference.unknown_;
  return divide(negative(difference.constant_), difference.slope_);
}

}  // namespace uckpt::layout
