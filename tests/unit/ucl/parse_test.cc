// From text to tree: spans, limits, recovery.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/ucl/dump.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"
#include "tests/unit/ucl/testing.h"

using namespace uckpt;
using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;

namespace {

// The shape of the one rule of a layout.
std::string shape_dump(const std::string& shape) {
  Diagnostics diagnostics;
  const Program p = parse(Source("x", cat("layout l { \"a\" ", shape, " }")), diagnostics);
  CHECK(diagnostics.text() == "");
  return dump(std::get<Rule>(std::get<Layout>(p.statements[0]).items[0]).body.shape);
}

std::string expr_dump(const std::string& expr) {
  Diagnostics diagnostics;
  const Program p = parse(Source("x", "where a = " + expr), diagnostics);
  CHECK(diagnostics.text() == "");
  return dump(std::get<Where>(p.statements[0]).bindings[0].value);
}

std::string repeated(std::string_view text, size_t bytes) {
  std::string out;
  while (out.size() + text.size() <= bytes) out += text;
  return out;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

TEST_CASE("a shape is read as written") {
  CHECK(shape_dump("[g@tp (q: r | k: 1) pad(128*tp) @(tp, dp[chunk]), 3@tp[2,1], ...]") ==
        "shape ...last\n"
        "  dim\n"
        "    axis g\n"
        "      cut\n"
        "        over tp\n"
        "    concat\n"
        "      block q\n"
        "        dim\n"
        "          axis r\n"
        "      block k\n"
        "        dim\n"
        "          number 1\n"
        "      pad\n"
        "        product\n"
        "          number 128\n"
        "          name tp\n"
        "      cut\n"
        "        over tp\n"
        "        over dp chunk\n"
        "  dim\n"
        "    number 3\n"
        "      cut\n"
        "        over tp sizes 2 1\n");
  CHECK(shape_dump("[]") == "shape\n");
  CHECK(shape_dump("[...]") == "shape ...first\n");
}

TEST_CASE("chains of operators are flat, and bind as usual") {
  CHECK(expr_dump("1 + 2 * b / (c - 1) - min(d, 4)") ==
        "sum\n"
        "  number 1\n"
        "  product\n"
        "    number 2\n"
        "    name b\n"
        "    inverted\n"
        "    sum\n"
        "      name c\n"
        "      inverted\n"
        "      number 1\n"
        "  inverted\n"
        "  min\n"
        "    name d\n"
        "    number 4\n");
  CHECK(expr_dump("(a * b) * c") == expr_dump("a * b * c"));
  CHECK(expr_dump("a / b * c") != expr_dump("a / (b * c)"));
}

TEST_CASE("every node carries the text it came from") {
  const Source source(
      "x",
      "ucl 1\nlayout l over tp {\n  optional \"a.{i}\" [g@tp (q: r | k: 1) d, h pad(2) @tp] * 1/tp "
      "on tp first, 2 when tp > 1\n  index i @tp local\n}\n");
  Diagnostics diagnostics;
  const Program p = parse(source, diagnostics);
  REQUIRE(diagnostics.text() == "");
  const auto& layout = std::get<Layout>(p.statements[1]);
  const auto& rule = std::get<Rule>(layout.items[0]);
  const auto text = [&](Span span) { return source.text(span); };
  CHECK(text(layout.span).starts_with("layout l over"));
  CHECK(text(layout.span).ends_with("local\n}"));
  CHECK(text(layout.name.span) == "l");
  CHECK(text(rule.span).starts_with("optional \"a.{i}\""));
  CHECK(text(rule.span).ends_with("when tp > 1"));
  CHECK(text(rule.name.span) == "\"a.{i}\"");
  CHECK(text(rule.name.segments[1].capture->span) == "{i}");
  CHECK(text(rule.body.span) == "[g@tp (q: r | k: 1) d, h pad(2) @tp] * 1/tp");
  CHECK(text(rule.body.value->span) == "* 1/tp");
  CHECK(text(rule.on[0].span) == "on tp first, 2");
  CHECK(text(rule.when[0].span) == "tp > 1");
  CHECK(text(span_of(layout.items[1])) == "index i @tp local");
  std::vector<std::string_view> factors;
  each_factor(rule.body.shape, [&](const Factor& f) { factors.push_back(text(f.span)); });
  CHECK(factors == std::vector<std::string_view>{"g@tp", "(q: r | k: 1)", "r", "1", "d", "h pad(2) @tp"});
}

TEST_CASE("a text that is not fit to be read is refused") {
  CHECK(first_line(messages(std::string((1 << 20) + 1, ' '))) ==
        "test.ucl:1:1: error: the file has 1,048,577 bytes, more than the 1,048,576 that a program may have "
        "[ucl.limit_size]");
  CHECK(first_line(messages("ucl 1\n\xff")) ==
        "test.ucl:2:1: error: byte 6 of the file is not UTF-8 [ucl.utf8]");
  CHECK(first_line(messages(std::string("ucl 1\n\0", 7))) ==
        "test.ucl:2:1: error: `\\u{0}` is no character of this language [ucl.token]");
  CHECK(messages("ucl 1\r\nlayout l {\r\n  \"a\" replicate  # b\r\n}\r\n") == "");
}

TEST_CASE("nesting of 200 is fine, more is not") {
  const auto nested = [](size_t depth) {
    return "ucl 1\nlayout l {\n\"a\" [" + std::string(depth, '(') + "d" + std::string(depth, ')') + "]\n}\n";
  };
  CHECK(messages(nested(198)) == "");
  CHECK(messages(nested(199)).find("ucl.limit_depth") != std::string::npos);
}

TEST_CASE("hostile texts end soon") {
  const size_t size = 50'000;
  for (const char* part :
       {"(", "{", "[", "a ", "\"a\" , ", "\n\"a\" [\n", "layout ", "}", "#\n", "@", "\"", "ucl 1\n",
        "given a = b\n", "where b = a\n", "layout l over t { use l }\n", "map a <-> b {}\n"}) {
    CAPTURE(part);
    CHECK(messages(repeated(part, size)) != "");
  }
  const std::string head = "ucl 1\nlayout l over t { ", tail = " }\n";
  for (const char* part :
       {"\"a\" [h, h] ", "\"a*b\" [h]\n", "\"*a\" replicate\n", "index i @t ", "where a = b\n", "use m\n",
        "\"a\" [x@y] when z\n", "\"a.{i}\" [o] on u first\n"}) {
    CAPTURE(part);
    CHECK(messages(head + repeated(part, size) + tail) != "");
  }
  CHECK(messages("ucl 1\nlayout l { \"a\" [" + repeated("a ", size) + "] }") != "");
  CHECK(messages("ucl 1\nlayout l { \"a\" [" + repeated("(a: b | c: d) ", size) + "] }") != "");
  CHECK(messages("ucl 1\nmap a <-> b { \"a\" [" + repeated("(a: b | c: d) ", size) + "] <-> \"b\" }") != "");
  CHECK(messages("ucl 1\nmap a <-> b { " +
                 repeated("\"a\" [(a: b | c: d) (e: f | g: h)] <-> \"b\" [] ", size) + "}") != "");
  CHECK(messages("ucl 1\nmap a <-> b { \"a\"" + repeated(", \"b\"", size) + " <-> \"b\" }") != "");
  CHECK(messages("ucl 1\nwhere a = 1" + repeated("+1", size)) != "");
  CHECK(messages("ucl 1\nlayout l { \"" + repeated("a.", size) + "\" replicate }") != "");
}
