#include "lib/base/text.h"

#include <doctest/doctest.h>

#include "lib/base/checked.h"
#include "lib/base/error.h"

using namespace uckpt;

TEST_CASE("escape makes text from files safe for a terminal") {
  CHECK(escape("plain é 中") == "plain é 中");
  CHECK(escape("a\nb\x1b[31m") == "a\\nb\\u{1b}[31m");
  CHECK(escape("\xff\xc0\xaf") == "\\xff\\xc0\\xaf");
  CHECK(escape("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // a lone surrogate is not UTF-8
  CHECK(escape("\u202eabc") == "\\u{202e}abc");
  CHECK(escape(std::string(300, 'x')).size() == 200 + std::string("…").size());
}

TEST_CASE("natural order counts digit runs as numbers") {
  CHECK(natural_less("rank_9", "rank_10"));
  CHECK(!natural_less("rank_10", "rank_9"));
  CHECK(natural_less("a2b10", "a2b11"));
  CHECK(natural_less("a", "ab"));
  CHECK(!natural_less("a", "a"));
  CHECK(natural_less("99999999999999999999998", "99999999999999999999999"));
}

TEST_CASE("nearest suggests only what is near") {
  const std::vector<std::string> names = {"inspect", "convert", "plan"};
  CHECK(nearest("convrt", names) == "convert");
  CHECK(nearest("pln", names) == "plan");
  CHECK(!nearest("zzzzzz", names));
}

TEST_CASE("human sizes, counts and ranges") {
  CHECK(human_bytes(512) == "512 B");
  CHECK(human_bytes(1536) == "1.50 KiB");
  CHECK(human_count(1234567) == "1,234,567");
  CHECK(human_count(12) == "12");
  CHECK(shape_text(std::vector<int64_t>{2, 3}) == "[2, 3]");
  CHECK(shape_text(std::vector<int64_t>{}) == "[]");
  CHECK(ranges_text(std::vector<int64_t>{0, 1, 2, 4, 5, 9}) == "0-2, 4-5, 9");
}

TEST_CASE("globs match whole names") {
  CHECK(glob_match("layers.*.weight", "layers.0.attn.weight"));
  CHECK(!glob_match("layers.*.weight", "layers.0.attn.weights"));
  CHECK(glob_match("*", ""));
  CHECK(glob_match("a?c", "abc"));
  CHECK(!glob_match("a?c", "ac"));
  CHECK(glob_match("*a*b*", "xxaxxbxx"));
}

TEST_CASE("products notice overflow, but a zero wins") {
  CHECK(checked_product(std::vector<int64_t>{2, 3}) == 6);
  CHECK(checked_product(std::vector<int64_t>{}) == 1);
  CHECK(!checked_product(std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40}));
  CHECK(checked_product(std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40, 0}) == 0);
  CHECK(!checked_product(std::vector<int64_t>{2, -1}));
  CHECK(range_inside(5, 5, 10));
  CHECK(!range_inside(6, 5, 10));
  CHECK(!range_inside(INT64_MAX, INT64_MAX, 10));
}

TEST_CASE("an error names its place once, innermost first") {
  Error e = refused("zip.overlap", "two members share bytes");
  e.in_member("archive/data/3").in_file("model.pt").in_file("folder");
  CHECK(e.line() == "model.pt!archive/data/3: two members share bytes");
  CHECK(e.exit_code() == 1);
  CHECK(trouble("x", "y").in_file("a\nb").line() == "a\\nb: y");
}
