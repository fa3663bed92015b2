// Places in texts, and the excerpts of messages.
#include "lib/ucl/source.h"

#include <doctest/doctest.h>

using namespace uckpt::ucl;

namespace {

Span find(const Source& source, std::string_view part) {
  const auto at = static_cast<uint32_t>(source.text().find(part));
  return {at, at + static_cast<uint32_t>(part.size())};
}

std::string marked(const std::string& text, std::string_view part) {
  const Source source("x", text);
  return excerpt(source, find(source, part));
}

}  // namespace

TEST_CASE("positions count lines and characters from 1") {
  const Source source("x", "ab\nc€d\r\n\nz");
  const auto at = [&](uint32_t offset) {
    const Position p = source.position(offset);
    return std::pair(p.line, p.column);
  };
  CHECK(at(0) == std::pair(1u, 1u));
  CHECK(at(2) == std::pair(1u, 3u));
  CHECK(at(3) == std::pair(2u, 1u));
  CHECK(at(7) == std::pair(2u, 3u));  // d, behind a character of three bytes
  CHECK(at(10) == std::pair(3u, 1u));
  CHECK(at(12) == std::pair(4u, 2u));  // the end of the text
  CHECK(source.line_at(7) == Span{3, 8});
  CHECK(source.line_at(10) == Span{10, 10});
}

TEST_CASE("carets stand below the span, whatever is before it") {
  CHECK(marked("one two", "two") == "    1 | one two\n      |     ^^^\n");
  CHECK(marked("\tone", "one") == "    1 |  one\n      |  ^^^\n");
  CHECK(marked("€ two", "two") == "    1 | € two\n      |   ^^^\n");
  CHECK(marked("漢字 two", "two") == "    1 | 漢字 two\n      |      ^^^\n");
  CHECK(marked("漢字 two", "字") == "    1 | 漢字 two\n      |   ^^\n");
  CHECK(marked("e\xcc\x81 two", "two") == "    1 | e\xcc\x81 two\n      |   ^^^\n");  // a combining accent
}

TEST_CASE("what would harm a terminal is escaped, and measured as shown") {
  CHECK(marked("\x1b[31m two", "two") == "    1 | \\u{1b}[31m two\n      |            ^^^\n");
  CHECK(marked("\xff two", "two") == "    1 | \\xff two\n      |      ^^^\n");
  CHECK(marked("\xe2\x80\xae two", "two") == "    1 | \\u{202e} two\n      |          ^^^\n");
}

TEST_CASE("spans at and over the end of a line") {
  const Source source("x", "one\ntwo");
  CHECK(excerpt(source, {0, 6}) == "    1 | one\n      | ^^^\n");
  CHECK(excerpt(source, {3, 3}) == "    1 | one\n      |    ^\n");
  CHECK(excerpt(source, {7, 7}) == "    2 | two\n      |    ^\n");
  CHECK(excerpt(Source("x", ""), {0, 0}) == "    1 |\n      | ^\n");
}

TEST_CASE("a long line is cut around the span") {
  const std::string many(500, 'a');
  const std::string text = marked(many + " two " + many, "two");
  const std::string line = text.substr(0, text.find('\n'));
  CHECK(line.starts_with("    1 | …aaa"));
  CHECK(line.ends_with("aaa…"));
  CHECK(text.find("two") - line.find("…") == 32 + 1);  // 30 columns, the mark of three bytes
  CHECK(text.ends_with("\n      | " + std::string(31, ' ') + "^^^\n"));

  const std::string far = marked(std::string(1 << 19, 'b') + " two", "two");
  CHECK(far.size() < 300);
  CHECK(far.find(" two\n") != std::string::npos);
}
