// Random patterns and names, and a slow, obvious matcher, for tests only.
#pragma once

#include <random>
#include <string>

#include "lib/base/text.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/name_pattern.h"

namespace uckpt::ucl::testing {

inline NamePattern pattern_of(const std::string& text) {
  Diagnostics diagnostics;
  const Source source("pattern", uckpt::cat("\"", text, "\""));
  return parse_name_pattern(source, source.whole(), diagnostics);
}

template <class Random>
const char* one_of(Random& random, std::initializer_list<const char*> choices) {
  return choices.begin()[random() % choices.size()];
}

inline std::string random_pattern(std::mt19937& random) {
  std::string out;
  bool rest = false;
  const size_t count = 1 + random() % 3;
  int captures = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) out += '.';
    const std::string name(1, static_cast<char>('i' + captures));
    switch (random() % 8) {
      case 0:
        out += cat(one_of(random, {"", "a"}), "{", name, one_of(random, {"", "+1"}), "}");
        ++captures;
        break;
      case 1:
        out += cat(one_of(random, {"", "a"}), "{", name, ":*}", one_of(random, {"", "b"}));
        ++captures;
        break;
      case 2:
        out += cat("{", name, ":a|b|ab}");
        ++captures;
        break;
      case 3:
        out += one_of(random, {"*", "a*", "*b", "*a*", "a*b"});
        break;
      case 4:
        if (!rest) {
          out += "**";
          rest = true;
          break;
        }
        [[fallthrough]];
      default:
        out += one_of(random, {"a", "b", "ab", "1", "a1"});
    }
  }
  return out;
}

inline std::string random_name(std::mt19937& random) {
  std::string out;
  const size_t count = 1 + random() % 4;
  for (size_t i = 0; i < count; ++i)
    out +=
        cat(i > 0 ? "." : "", one_of(random, {"a", "b", "ab", "aab", "ba", "1", "2", "0", "a1", "01", ""}));
  return out;
}

// Tries every way to part the text; no capture stands twice in a random pattern.
inline bool naive_segment(const Segment& s, std::string_view text) {
  if (s.kind == Segment::Kind::kLiteral) return text == s.pieces[0];
  if (s.kind == Segment::Kind::kGlob) {
    std::string glob;
    for (size_t i = 0; i < s.pieces.size(); ++i) glob += (i > 0 ? "*" : "") + s.pieces[i];
    return uckpt::glob_match(glob, text);
  }
  for (size_t begin = 0; begin <= text.size(); ++begin)
    for (size_t end = begin; end <= text.size(); ++end) {
      if (text.substr(0, begin) != s.pieces[0] || text.substr(end) != s.pieces[1]) continue;
      const std::string taken(text.substr(begin, end - begin));
      const Capture& c = *s.capture;
      if (c.kind == Capture::Kind::kText) return true;
      if (c.kind == Capture::Kind::kChoice)
        for (const std::string& choice : c.choices)
          if (choice == taken) return true;
      if (c.kind == Capture::Kind::kNumber)
        for (int64_t n = 0; n < 20; ++n)
          if (std::to_string(n + c.offset) == taken) return true;
    }
  return false;
}

inline bool naive_match(const NamePattern& p, std::string_view name, size_t segment = 0) {
  if (segment == p.segments.size()) return false;
  const Segment& s = p.segments[segment];
  const bool last = segment + 1 == p.segments.size();
  for (size_t end = 0; end <= name.size(); ++end) {
    if (end < name.size() && name[end] != '.') continue;
    const std::string_view head = name.substr(0, end);
    const bool fits = s.kind == Segment::Kind::kRest || naive_segment(s, head);
    if (fits && last && end == name.size()) return true;
    if (fits && !last && end < name.size() && naive_match(p, name.substr(end + 1), segment + 1)) return true;
    if (s.kind != Segment::Kind::kRest) return false;
  }
  return false;
}

}  // namespace uckpt::ucl::testing
