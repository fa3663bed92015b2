#include "lib/pickle/value_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "lib/base/text.h"

namespace uckpt::pickle {

namespace {

constexpr size_t kMaxKeyText = 1024;
constexpr int kMaxShownDepth = 8;

// The magnitude as 32-bit limbs, least significant first.
std::vector<uint32_t> magnitude(ByteSpan bytes, bool negative) {
  std::vector<uint32_t> limbs((bytes.size() + 3) / 4, 0);
  uint32_t carry = negative ? 1 : 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const uint32_t byte = (negative ? static_cast<uint8_t>(~bytes[i]) : bytes[i]) + carry;
    carry = byte >> 8;
    limbs[i / 4] |= (byte & 0xff) << (8 * (i % 4));
  }
  if (carry) limbs.push_back(1);
  return limbs;
}

// Divides in place and returns the remainder.
uint32_t divide(std::vector<uint32_t>& limbs, uint32_t by) {
  uint64_t rest = 0;
  for (size_t i = limbs.size(); i-- > 0;) {
    const uint64_t part = rest << 32 | limbs[i];
    limbs[i] = static_cast<uint32_t>(part / by);
    rest = part % by;
  }
  while (!limbs.empty() && limbs.back() == 0) limbs.pop_back();
  return static_cast<uint32_t>(rest);
}

void append_key(std::string& out, const Value& key, int depth) {
  if (out.size() > kMaxKeyText) return;
  switch (key.kind()) {
    case Kind::kNone:
      out += "None";
      return;
    case Kind::kBool:
      out += *key.boolean() ? "True" : "False";
      return;
    case Kind::kInt:
      out += cat(*key.integer());
      return;
    case Kind::kBigInt:
      out += big_integer_text(*key.bytes());
      return;
    case Kind::kReal:
      out += real_text(*key.real());
      return;
    case Kind::kText:
      out += *key.text();
      return;
    case Kind::kBytes:
      out += hex_text(key.bytes()->first(std::min<size_t>(key.bytes()->size(), kMaxKeyText)));
      return;
    case Kind::kTuple:
      out += '(';
      for (size_t i = 0; i < key.size() && depth < kMaxShownDepth && out.size() <= kMaxKeyText; ++i) {
        if (i > 0) out += ", ";
        append_key(out, key.at(i), depth + 1);
      }
      out += ')';
      return;
    default:
      out += key.global_name().empty() ? "?" : key.global_name();
  }
}

}  // namespace

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string big_integer_text(ByteSpan bytes) {
  constexpr uint32_t kBillion = 1'000'000'000;
  const bool negative = !bytes.empty() && bytes.back() >= 0x80;
  std::vector<uint32_t> limbs = magnitude(bytes, negative);
  while (!limbs.empty() && limbs.back() == 0) limbs.pop_back();
  std::string reversed;
  while (!limbs.empty()) {
    uint32_t digits = divide(limbs, kBillion);
    for (int i = 0; i < 9 && (digits != 0 || !limbs.empty()); ++i, digits /= 10)
      reversed += static_cast<char>('0' + digits % 10);
  }
  if (reversed.empty()) return "0";
  if (negative) reversed += '-';
  return {reversed.rbegin(), reversed.rend()};
}

std::string hex_text(ByteSpan bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (uint8_t b : bytes) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string key_text(const Value& key) {
  if (const auto text = key.text()) return std::string(*text);
  std::string out;
  append_key(out, key, 0);
  if (out.size() > kMaxKeyText) {
    out.resize(kMaxKeyText);
    while (!valid_utf8(out) && !out.empty() && out.size() > kMaxKeyText - 4) out.pop_back();
    out += "…";
  }
  return out;
}

}  // namespace uckpt::pickle
