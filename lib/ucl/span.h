// Places in a source text: half-open byte ranges. Line and column are computed only when a message is
// printed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace uckpt::ucl {

// Bytes [begin, end) of one source. A source is at most 1 MiB, so 32 bits are plenty.
struct Span {
  uint32_t begin = 0, end = 0;

  uint32_t size() const { return end - begin; }
  bool contains(Span inner) const { return begin <= inner.begin && inner.end <= end; }
  friend bool operator==(Span, Span) = default;
};

// The smallest span over both.
inline Span join(Span a, Span b) { return {std::min(a.begin, b.begin), std::max(a.end, b.end)}; }

// An identifier where it stands. Two names are equal when their texts are, wherever they stand.
struct Name {
  std::string text;
  Span span;

  bool empty() const { return text.empty(); }
  friend bool operator==(const Name& a, const Name& b) { return a.text == b.text; }
};

}  // namespace uckpt::ucl
