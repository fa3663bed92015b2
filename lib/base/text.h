// Small text helpers: joining, escaping for terminals, natural order, near names, human sizes.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace uckpt {

namespace detail {
inline void append(std::string& out, std::string_view s) { out += s; }
inline void append(std::string& out, char c) { out += c; }
template <class T>
requires std::is_arithmetic_v<T>
void append(std::string& out, T v) {
  if constexpr (std::is_same_v<T, bool>) {
    out += v ? "true" : "false";
  } else {
    char buf[48];
    out.append(buf, std::to_chars(buf, buf + sizeof buf, v).ptr);
  }
}
}  // namespace detail

// Concatenates text and numbers: cat("expected ", n, " bytes").
template <class... Args>
std::string cat(const Args&... args) {
  std::string out;
  (detail::append(out, args), ...);
  return out;
}

std::string hex(uint64_t v, int digits);

// Text from a file made safe for a terminal: C0, C1, DEL, bidi controls and broken UTF-8 as `\u{…}` or
// `\x..`, newline as `\n`; cut at `max_chars` bytes with `…`.
std::string escape(std::string_view text, size_t max_chars = 200);

bool valid_utf8(std::string_view text);

// "rank_9" before "rank_10": digit runs compare as numbers.
bool natural_less(std::string_view a, std::string_view b);

// The candidate within a third of the name's length in edits, if any: "did you mean".
std::optional<std::string> nearest(std::string_view name, std::span<const std::string> candidates);

std::string human_bytes(uint64_t bytes);                 // 1.50 GiB
std::string human_count(uint64_t count);                 // 1,234,567
std::string shape_text(std::span<const int64_t> shape);  // [2, 3]

// "0-2, 4-7" for {0,1,2,4,5,6,7}; the input is sorted.
std::string ranges_text(std::span<const int64_t> sorted);

// "a, b, c and 4 more": names from a file, made safe; all of up to four, else the first three. `count`: how
// many there are, where `names` holds but the first four.
std::string some_of(std::span<const std::string> names, size_t count);
inline std::string some_of(std::span<const std::string> names) { return some_of(names, names.size()); }

// Shell-style patterns on whole names: `*` any text without a dot-segment rule, `?` one character.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace uckpt
