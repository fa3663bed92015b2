#include "lib/examine/name_map.h"

#include <doctest/doctest.h>

#include "lib/base/error.h"

using namespace uckpt;

namespace {

NameMap map_of(std::initializer_list<const char*> rules) {
  NameMap map;
  for (const char* rule : rules) map.add(rule);
  return map;
}

std::string code_of(const std::string& rule) {
  NameMap map;
  try {
    map.add(rule);
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

}  // namespace

TEST_CASE("captures carry over, the first rule that matches wins") {
  NameMap map = map_of(
      {"model.layers.{i}.{x:**}=blocks.{i+1}.{x}", "model.{x:*}={x}", "{x:**}.{p:weight|bias}=t.{x}.{p}"});
  CHECK(map("model.layers.0.mlp.w") == "blocks.1.mlp.w");
  CHECK(map("model.head") == "head");
  CHECK(map("a.b.bias") == "t.a.b.bias");
  CHECK(map("a.b.other") == "a.b.other");
  CHECK_NOTHROW(map.check_used());
}

TEST_CASE("a rule that matches nothing first is a mistake") {
  NameMap map = map_of({"{x:**}=t.{x}", "a=b"});
  CHECK(map("a") == "t.a");
  CHECK_THROWS_WITH_AS(map.check_used(), doctest::Contains("`a=b`"), Error);
}

TEST_CASE("what is no rule") {
  for (const char* rule :
       {"", "a", "a.*=b.*", "{i}=b.{j}", "{x=b", "a=", "=b", "a=b\" <-> \"c", "a.{x:**}=b{x}"}) {
    CAPTURE(rule);
    CHECK(code_of(rule) == "usage.map");
  }
  CHECK(code_of("a.*=b") == "");  // each name of its own: two of them would be told
}
