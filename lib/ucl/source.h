// One source text and its lines. A Source is a cheap handle: copies share the text, which never changes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/span.h"

namespace uckpt::ucl {

// A longer text is not looked at: one diagnostic says so.
inline constexpr size_t kMaxSourceBytes = 1 << 20;

// A place for people, both from 1. Columns count characters (code points), not bytes.
struct Position {
  uint32_t line = 1, column = 1;
};

class Source {
 public:
  // `name` is what messages call it: a path as typed, or the name of a shipped spec.
  Source(std::string name, std::string text);

  const std::string& name() const { return content_->name; }
  std::string_view text() const { return content_->text; }
  std::string_view text(Span span) const { return text().substr(span.begin, span.size()); }
  Span whole() const { return {0, static_cast<uint32_t>(text().size())}; }

  Position position(uint32_t offset) const;
  // The line that holds the offset, without its line end.
  Span line_at(uint32_t offset) const;

  friend bool operator==(const Source& a, const Source& b) { return a.content_ == b.content_; }

 private:
  struct Content {
    std::string name, text;
    std::vector<uint32_t> line_starts;
  };
  std::shared_ptr<const Content> content_;
};

// The source line of a span with carets below it, in a gutter with the line number, two lines with ends:
//      3 | "a" [o@tpp, h]
//        |        ^^^
// A long line is cut around the span; what would move a terminal's cursor is escaped.
std::string excerpt(const Source& source, Span span);

}  // namespace uckpt::ucl
