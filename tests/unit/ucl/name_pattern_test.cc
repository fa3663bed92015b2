// Patterns over names: reading, matching, making names, comparing patterns.
#include "lib/ucl/name_pattern.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "lib/base/text.h"
#include "lib/ucl/diagnostics.h"
#include "tests/unit/ucl/naive_pattern.h"

using namespace uckpt;
using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;

namespace {

// What the captures take: "i=3 x=ab"; "no" if the name does not match.
std::string captured(const std::string& pattern, std::string_view name) {
  const auto values = match(pattern_of(pattern), name);
  if (!values) return "no";
  std::string out;
  for (const CaptureValue& v : *values)
    out += cat(out.empty() ? "" : " ", v.name, "=", v.text.empty() ? std::to_string(v.number) : v.text);
  return out;
}

}  // namespace

TEST_CASE("matching, case by case") {
  struct Case {
    const char *pattern, *name, *expected;
  };
  const Case cases[] = {
      {"a.b", "a.b", ""},
      {"a.b", "a.bc", "no"},
      {"a.b", "a", "no"},
      {"layers.{i}.w", "layers.12.w", "i=12"},
      {"layers.{i}.w", "layers.0.w", "i=0"},
      {"layers.{i}.w", "layers.012.w", "no"},
      {"layers.{i}.w", "layers..w", "no"},
      {"layers.{i}.w", "layers.1a.w", "no"},
      {"layers.{i}.w", "layers.-1.w", "no"},
      {"layers.{i}.w", "layers.99999999999999999999.w", "no"},
      {"layers.{i+3}.w", "layers.5.w", "i=2"},
      {"layers.{i+3}.w", "layers.2.w", "no"},
      {"layer{i}_x.w", "layer7_x.w", "i=7"},
      {"a{x:*}b", "ab", "x=0"},
      {"a{x:*}b", "acdb", "x=cd"},
      {"a{x:*}b", "a.b", "no"},
      {"aa{x:*}aa", "aaa", "no"},
      {"{p:weight|bias}", "bias", "p=bias"},
      {"{p:weight|bias}", "biases", "no"},
      {"*norm*", "layernorm", ""},
      {"*norm*", "norm", ""},
      {"*norm*", "nor", "no"},
      {"*a*b*a", "xaxbxa", ""},
      {"*a*b*a", "ab", "no"},
      {"a*", "a.b", "no"},
      {"**", "a", ""},
      {"**", "a.b.c", ""},
      {"a.**", "a", "no"},
      {"a.**.b", "a.x.y.b", ""},
      {"a.**.b", "a.b", "no"},
      {"a.{x:**}.b", "a.x.y.b", "x=x.y"},
      {"{x:**}.{i}", "a.b.3", "i=3 x=a.b"},
      {"{i}.{i}", "3.3", "i=3"},
      {"{i}.{i}", "3.4", "no"},
      {"{i}.{i+1}", "3.4", "i=3"},
      {"a\\*b", "a*b", ""},
      {"a\\*b", "axb", "no"},
      {"a\\{i\\}", "a{i}", ""},
      {"a..b", "a..b", ""},
  };
  for (const Case& c : cases) {
    CAPTURE(c.pattern);
    CAPTURE(c.name);
    CHECK(captured(c.pattern, c.name) == c.expected);
  }
}

TEST_CASE("names are made from captures") {
  const auto made = [](const std::string& from, std::string_view name, const std::string& to) {
    const auto values = match(pattern_of(from), name);
    REQUIRE(values);
    return produce(pattern_of(to), *values).value_or("nothing");
  };
  CHECK(made("h.{i}.w", "h.4.w", "layers.{i+3}.w") == "layers.7.w");
  CHECK(made("layers.{i+3}.w", "layers.7.w", "h.{i}.w") == "h.4.w");
  CHECK(made("a.{x:*}", "a.b", "c.{x:*}_d") == "c.b_d");
  CHECK(made("a.{x:**}", "a.b.c", "{x:**}") == "b.c");
  CHECK(made("a.{p:u|v}", "a.u", "{p:v|w}") == "nothing");
  CHECK(made("a.{x:**}", "a.b.c", "{x:*}") == "nothing");
  CHECK(made("a.{i}", "a.9223372036854775807", "{i+1}") == "nothing");
  CHECK(made("a.{i}", "a.1", "b.{j}") == "nothing");
  CHECK(made("a.{i}", "a.1", "b.*") == "nothing");
}

TEST_CASE("a name that matches is made again") {
  std::mt19937 random(1);
  int matched = 0;
  for (int round = 0; round < 20000; ++round) {
    const NamePattern pattern = pattern_of(random_pattern(random));
    const std::string name = random_name(random);
    const auto values = match(pattern, name);
    CHECK(values.has_value() == naive_match(pattern, name));
    if (!values || pattern.has_wildcard()) continue;
    ++matched;
    CHECK(produce(pattern, *values) == name);
  }
  CHECK(matched > 200);
}

TEST_CASE("patterns that cover or meet others") {
  const auto cover = [](const char* wide, const char* narrow) {
    return covers(pattern_of(wide), pattern_of(narrow));
  };
  CHECK(cover("**", "a.{i}.**"));
  CHECK(cover("a.*", "a.b"));
  CHECK(cover("a.*", "a.{i}"));
  CHECK(cover("a.{j}", "a.{i+3}"));
  CHECK(cover("*norm*", "layernorm{x:*}"));
  CHECK(cover("{p:a|b|c}", "{q:a|c}"));
  CHECK(cover("**.bias", "l.{i}.**.bias"));
  CHECK(!cover("a.{i+3}", "a.{j}"));
  CHECK(!cover("a.{i}", "a.*"));
  CHECK(!cover("a.**", "a"));
  CHECK(!cover("a.**.b", "a.b"));
  CHECK(!cover("{p:a|b}", "{q:a|c}"));
  CHECK(!cover("{i}.{i}", "{i}.{j}"));

  const auto meet = [](const char* a, const char* b) { return could_meet(pattern_of(a), pattern_of(b)); };
  CHECK(meet("a.**", "**.b"));
  CHECK(meet("a.{i}", "a.1"));
  CHECK(meet("*norm", "layer*"));
  CHECK(!meet("a.{i}", "a.x"));
  CHECK(!meet("a.**", "b.**"));
  CHECK(!meet("a.**.c", "a.c"));
  CHECK(!meet("{p:a|b}", "{q:c|d}"));
  CHECK(!meet("x*", "y*"));
}

TEST_CASE("what covers and what meets agrees with the names that match") {
  std::mt19937 random(2);
  int covering = 0, apart = 0;
  for (int round = 0; round < 20000; ++round) {
    const NamePattern a = pattern_of(random_pattern(random)), b = pattern_of(random_pattern(random));
    const bool covered = covers(a, b), meeting = could_meet(a, b);
    covering += covered;
    apart += !meeting;
    CHECK(could_meet(b, a) == meeting);
    for (int k = 0; k < 10; ++k) {
      const std::string name = random_name(random);
      const bool in_a = match(a, name).has_value(), in_b = match(b, name).has_value();
      if (covered && in_b) CHECK(in_a);
      if (in_a && in_b) CHECK(meeting);
    }
  }
  CHECK(covering > 500);
  CHECK(apart > 5000);
}

TEST_CASE("no pattern makes matching slow") {
  std::string stars, text;
  for (int i = 0; i < 400; ++i) stars += "*a";
  for (int i = 0; i < 100'000; ++i) text += 'a';
  CHECK(match(pattern_of(stars), text));
  CHECK(!match(pattern_of(stars + "b"), text));
}
