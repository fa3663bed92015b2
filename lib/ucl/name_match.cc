// Matching names, making names, and comparing patterns with each other.
#include <algorithm>
#include <charconv>
#include <span>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/ucl/name_pattern.h"

namespace uckpt::ucl {

namespace {

using Parts = std::span<const std::string_view>;
using SegmentKind = Segment::Kind;
using CaptureKind = Capture::Kind;

// The texts in order, the first at the start, the last at the end, the others where they first fit.
template <class Text, class Pieces>
bool fits_between(const Text& text, const Pieces& pieces) {
  const auto& first = pieces.front();
  const auto& last = pieces.back();
  if (pieces.size() == 1) return text == first;
  if (text.size() < first.size() + last.size()) return false;
  if (text.compare(0, first.size(), first) != 0) return false;
  const size_t end = text.size() - last.size();
  if (text.compare(end, last.size(), last) != 0) return false;
  size_t at = first.size();
  for (size_t i = 1; i + 1 < pieces.size(); ++i) {
    const size_t found = text.find(pieces[i], at);
    if (found == Text::npos || found + pieces[i].size() > end) return false;
    at = found + pieces[i].size();
  }
  return true;
}

// What stands between the two pieces of a capturing segment, if they are there.
std::optional<std::string_view> inside(const Segment& segment, std::string_view text) {
  const std::string& before = segment.pieces[0];
  const std::string& behind = segment.pieces[1];
  if (text.size() < before.size() + behind.size() || !text.starts_with(before) || !text.ends_with(behind))
    return std::nullopt;
  return text.substr(before.size(), text.size() - before.size() - behind.size());
}

// A decimal number without leading zeros, less the offset; nothing if that is negative or leaves 64 bits.
std::optional<int64_t> read_number(std::string_view digits, int64_t offset) {
  if (digits.empty() || (digits.size() > 1 && digits[0] == '0')) return std::nullopt;
  if (!std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return std::nullopt;
  int64_t value = 0;
  if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec != std::errc{})
    return std::nullopt;
  if (value < offset) return std::nullopt;
  return value - offset;
}

// What the capture takes of a text; the name is left empty.
std::optional<CaptureValue> take(const Capture& capture, std::string_view text) {
  CaptureValue value{capture.name.text, std::string(text), 0};
  if (capture.kind == CaptureKind::kNumber) {
    const auto number = read_number(text, capture.offset);
    if (!number) return std::nullopt;
    value.number = *number;
    value.text.clear();
  } else if (capture.kind == CaptureKind::kChoice) {
    if (std::find(capture.choices.begin(), capture.choices.end(), text) == capture.choices.end())
      return std::nullopt;
  } else if (capture.kind == CaptureKind::kText && text.find('.') != std::string_view::npos) {
    return std::nullopt;
  }
  return value;
}

// Adds what a capture took; false if the same name took something else before.
bool remember(CaptureValues& values, CaptureValue value) {
  for (const CaptureValue& v : values)
    if (v.name == value.name) return v.text == value.text && v.number == value.number;
  values.push_back(std::move(value));
  return true;
}

bool match_segment(const Segment& segment, std::string_view text, CaptureValues& values) {
  if (segment.kind != SegmentKind::kCapture) return fits_between(text, segment.pieces);
  const auto middle = inside(segment, text);
  if (!middle) return false;
  auto value = take(*segment.capture, *middle);
  return value && remember(values, std::move(*value));
}

// The text that a capture stands for, or nothing where the value is not one that it could have taken.
std::optional<std::string> put(const Capture& capture, const CaptureValues& values) {
  const auto found =
      std::find_if(values.begin(), values.end(), [&](const auto& v) { return v.name == capture.name.text; });
  if (found == values.end()) return std::nullopt;
  if (capture.kind == CaptureKind::kNumber) {
    const auto number = found->number < 0 ? std::nullopt : checked_add(found->number, capture.offset);
    if (!number) return std::nullopt;
    return std::to_string(*number);
  }
  if (!take(capture, found->text)) return std::nullopt;
  return found->text;
}

// ---- patterns against patterns
// -----------------------------------------------------------------------------

// A segment as text with two symbols outside of every character: what a star takes, and what a number is.
using Symbols = std::u16string;
constexpr char16_t kStar = 256, kDigits = 257;

Symbols widen(std::string_view text) {
  Symbols out;
  for (char c : text) out += static_cast<char16_t>(static_cast<unsigned char>(c));
  return out;
}

Symbols symbols_of(const Segment& segment) {
  const bool number = segment.capture && segment.capture->kind == CaptureKind::kNumber;
  Symbols out = widen(segment.pieces[0]);
  for (size_t i = 1; i < segment.pieces.size(); ++i)
    out += (number ? kDigits : kStar) + widen(segment.pieces[i]);
  return out;
}

bool is_choice(const Segment& s) { return s.capture && s.capture->kind == CaptureKind::kChoice; }
bool is_number(const Segment& s) { return s.capture && s.capture->kind == CaptureKind::kNumber; }

// Every text the segment can take, if they are few: a literal's or a choice's.
std::vector<std::string> texts_of(const Segment& segment) {
  if (segment.kind == SegmentKind::kLiteral) return {segment.pieces[0]};
  std::vector<std::string> out;
  if (is_choice(segment))
    for (const std::string& c : segment.capture->choices)
      out.push_back(segment.pieces[0] + c + segment.pieces[1]);
  return out;
}

bool one_starts_with_the_other(std::string_view a, std::string_view b) {
  const size_t n = std::min(a.size(), b.size());
  return a.substr(0, n) == b.substr(0, n);
}
bool one_ends_with_the_other(std::string_view a, std::string_view b) {
  const size_t n = std::min(a.size(), b.size());
  return a.substr(a.size() - n) == b.substr(b.size() - n);
}

bool segments_meet(const Segment& a, const Segment& b) {
  const auto any_accepted = [](const std::vector<std::string>& texts, const Segment& by) {
    return std::any_of(texts.begin(), texts.end(), [&](const std::string& t) { return accepts(by, t); });
  };
  if (const auto texts = texts_of(a); !texts.empty()) return any_accepted(texts, b);
  if (const auto texts = texts_of(b); !texts.empty()) return any_accepted(texts, a);
  return one_starts_with_the_other(a.pieces.front(), b.pieces.front()) &&
         one_ends_with_the_other(a.pieces.back(), b.pieces.back());
}

// Segments before and behind the `**`; without one, all are before.
struct Ends {
  size_t before, behind;
};
Ends ends_of(const NamePattern& p) {
  if (p.rest < 0) return {p.segments.size(), 0};
  const auto rest = static_cast<size_t>(p.rest);
  return {rest, p.segments.size() - rest - 1};
}

}  // namespace

std::vector<std::string_view> split_name(std::string_view name) {
  std::vector<std::string_view> parts;
  parts.reserve(1 + static_cast<size_t>(std::count(name.begin(), name.end(), '.')));
  while (true) {
    const size_t dot = name.find('.');
    parts.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return parts;
    name.remove_prefix(dot + 1);
  }
}

bool captures_repeat(const NamePattern& pattern) {
  const auto all = pattern.captures();
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (all[i]->name == all[j]->name) return true;
  return false;
}

std::optional<CaptureValues> match(const NamePattern& pattern, std::string_view name) {
  if (!pattern.valid) return std::nullopt;
  const std::vector<std::string_view> parts = split_name(name);
  const size_t count = pattern.segments.size();
  if (pattern.rest < 0 ? parts.size() != count : parts.size() < count) return std::nullopt;

  CaptureValues values;
  const auto [before, behind] = ends_of(pattern);
  for (size_t i = 0; i < before; ++i)
    if (!match_segment(pattern.segments[i], parts[i], values)) return std::nullopt;
  for (size_t i = 0; i < behind; ++i)
    if (!match_segment(pattern.segments[count - behind + i], parts[parts.size() - behind + i], values))
      return std::nullopt;
  if (pattern.rest < 0 || !pattern.segments[before].capture) return values;

  const std::string_view last = parts[parts.size() - behind - 1];
  const std::string_view rest(parts[before].data(),
                              static_cast<size_t>(last.data() + last.size() - parts[before].data()));
  if (!remember(values, {pattern.segments[before].capture->name.text, std::string(rest), 0}))
    return std::nullopt;
  return values;
}

std::optional<std::string> produce(const NamePattern& pattern, const CaptureValues& values) {
  if (!pattern.valid || pattern.has_wildcard()) return std::nullopt;
  std::string out;
  for (size_t i = 0; i < pattern.segments.size(); ++i) {
    const Segment& s = pattern.segments[i];
    if (i > 0) out += '.';
    if (s.kind == SegmentKind::kLiteral) {
      out += s.pieces[0];
      continue;
    }
    const auto text = put(*s.capture, values);
    if (!text) return std::nullopt;
    out += s.kind == SegmentKind::kRest ? *text : cat(s.pieces[0], *text, s.pieces[1]);
  }
  return out;
}

bool accepts(const Segment& segment, std::string_view text) {
  if (segment.kind == SegmentKind::kRest) return true;
  if (segment.kind != SegmentKind::kCapture) return fits_between(text, segment.pieces);
  const auto middle = inside(segment, text);
  return middle && take(*segment.capture, *middle).has_value();
}

bool accepts_all(const Segment& segment, const Segment& other) {
  if (segment.kind == SegmentKind::kRest) return true;
  if (other.kind == SegmentKind::kRest) return false;
  if (const auto texts = texts_of(other); !texts.empty())
    return std::all_of(texts.begin(), texts.end(), [&](const std::string& t) { return accepts(segment, t); });
  if (is_choice(segment)) return false;
  if (is_number(segment))
    return is_number(other) && segment.pieces == other.pieces &&
           other.capture->offset >= segment.capture->offset;
  std::vector<Symbols> pieces;
  for (const std::string& piece : segment.pieces) pieces.push_back(widen(piece));
  return fits_between(symbols_of(other), pieces);
}

bool covers(const NamePattern& wide, const NamePattern& narrow) {
  if (!wide.valid || !narrow.valid) return false;
  if (captures_repeat(wide)) return wide.text == narrow.text;
  const Ends w = ends_of(wide), n = ends_of(narrow);
  const size_t wide_count = wide.segments.size(), narrow_count = narrow.segments.size();
  if (wide.rest < 0 && (narrow.rest >= 0 || wide_count != narrow_count)) return false;
  if (wide.rest >= 0 && narrow.rest < 0 && narrow_count < wide_count) return false;
  if (narrow.rest >= 0 && (w.before > n.before || w.behind > n.behind)) return false;
  for (size_t i = 0; i < w.before; ++i)
    if (!accepts_all(wide.segments[i], narrow.segments[i])) return false;
  for (size_t i = 1; i <= w.behind; ++i)
    if (!accepts_all(wide.segments[wide_count - i], narrow.segments[narrow_count - i])) return false;
  return true;
}

bool could_meet(const NamePattern& a, const NamePattern& b) {
  if (!a.valid || !b.valid) return false;
  if (a.rest < 0 && b.rest >= 0) return could_meet(b, a);
  const size_t a_count = a.segments.size(), b_count = b.segments.size();
  if (a.rest < 0 ? a_count != b_count : b.rest < 0 && b_count < a_count) return false;
  const Ends ea = ends_of(a), eb = ends_of(b);
  const size_t before = std::min(ea.before, eb.before);
  const size_t behind = b.rest < 0 ? ea.behind : std::min(ea.behind, eb.behind);
  for (size_t i = 0; i < before; ++i)
    if (!segments_meet(a.segments[i], b.segments[i])) return false;
  for (size_t i = 1; i <= behind; ++i)
    if (!segments_meet(a.segments[a_count - i], b.segments[b_count - i])) return false;
  return true;
}

}  // namespace uckpt::ucl
