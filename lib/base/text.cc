#include "lib/base/text.h"

#include <algorithm>
#include <cstdio>

namespace uckpt {

namespace {

struct Decoded {
  uint32_t code_point;
  size_t length;  // 0: not UTF-8
};

bool is_continuation(unsigned char c) { return (c & 0xc0) == 0x80; }

// One code point at `text[i]`. Surrogates are not UTF-8 and come back with length 0.
Decoded decode(std::string_view text, size_t i) {
  auto byte = [&](size_t k) { return static_cast<unsigned char>(i + k < text.size() ? text[i + k] : 0); };
  const unsigned char c = byte(0);
  if (c < 0x80) return {c, 1};
  const size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
  if (c < 0xc2 || c > 0xf4 || i + length > text.size()) return {0, 0};
  uint32_t cp = c & (0xffu >> (length + 1));
  for (size_t k = 1; k < length; ++k) {
    if (!is_continuation(byte(k))) return {0, 0};
    cp = cp << 6 | (byte(k) & 0x3f);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (cp < kSmallest[length] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) return {0, 0};
  return {cp, length};
}

// Characters that move a terminal's cursor, its colours or its direction of writing.
bool is_unsafe(uint32_t cp) {
  return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x061c || cp == 0x200e || cp == 0x200f ||
         (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The end of the digit run at `i`, and the run without leading zeros.
std::string_view digit_run(std::string_view s, size_t& i) {
  const size_t start = i;
  while (i < s.size() && is_digit(s[i])) ++i;
  std::string_view run = s.substr(start, i - start);
  while (run.size() > 1 && run.front() == '0') run.remove_prefix(1);
  return run;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

}  // namespace

std::string hex(uint64_t v, int digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(static_cast<size_t>(digits), '0');
  for (size_t i = out.size(); i-- > 0; v >>= 4) out[i] = kDigits[v & 15];
  return out;
}

bool valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Decoded d = decode(text, i);
    if (d.length == 0) return false;
    i += d.length;
  }
  return true;
}

std::string escape(std::string_view text, size_t max_chars) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const Decoded d = decode(text, i);
    std::string piece;
    if (d.length == 0) {
      piece = cat("\\x", hex(static_cast<unsigned char>(text[i]), 2));
    } else if (d.code_point == '\n') {
      piece = "\\n";
    } else if (is_unsafe(d.code_point)) {
      char buf[24];
      std::snprintf(buf, sizeof buf, "\\u{%x}", d.code_point);
      piece = buf;
    } else {
      piece = text.substr(i, d.length);
    }
    if (out.size() + piece.size() > max_chars) {
      return out + "…";
    }
    out += piece;
    i += d.length == 0 ? 1 : d.length;
  }
  return out;
}

bool natural_less(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view x = digit_run(a, i), y = digit_run(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i, ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;
}

std::optional<std::string> nearest(std::string_view name, std::span<const std::string> candidates) {
  std::optional<std::string> best;
  size_t limit = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& c : candidates) {
    if (c.size() > name.size() + limit || name.size() > c.size() + limit) continue;
    const size_t d = edit_distance(name, c);
    if (d < limit) {
      limit = d;
      best = c;
    }
  }
  return best;
}

std::string human_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  char buf[32];
  std::snprintf(buf, sizeof buf, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return buf;
}

std::string human_count(uint64_t count) {
  std::string digits = std::to_string(count), out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += cat(i > 0 ? ", " : "", shape[i]);
  return out + "]";
}

std::string ranges_text(std::span<const int64_t> sorted) {
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t j = i;
    while (j + 1 < sorted.size() && sorted[j + 1] <= sorted[j] + 1) ++j;
    out += cat(out.empty() ? "" : ", ", sorted[i]);
    if (sorted[j] > sorted[i]) out += cat("-", sorted[j]);
    i = j + 1;
  }
  return out;
}

std::string some_of(std::span<const std::string> names, size_t count) {
  const size_t shown = count > 4 ? 3 : count;
  std::string out;
  for (size_t i = 0; i < shown; ++i) out += cat(i > 0 ? ", " : "", escape(names[i], 80));
  return shown < count ? cat(out, " and ", count - shown, " more") : out;
}

bool glob_match(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace uckpt
