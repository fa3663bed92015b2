#include "lib/tensor/collapse.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"

using namespace uckpt;

namespace {

// "name*members" of every group, names given without facts.
std::string collapsed(const std::vector<std::string>& names) {
  std::vector<NamedItem> items;
  for (const std::string& n : names) items.push_back({n, ""});
  std::string out;
  for (const NameGroup& g : collapse_names(items))
    out += cat(out.empty() ? "" : " ", g.name, "*", g.members.size());
  return out;
}

}  // namespace

TEST_CASE("collapse: numbers between dots") {
  CHECK(collapsed({}) == "");
  CHECK(collapsed({"a.0.w", "b", "a.1.w", "a.2.w"}) == "a.{0-2}.w*3 b*1");
  CHECK(collapsed({"0.w", "2.w", "x.7"}) == "{0,2}.w*2 x.7*1");
  CHECK(collapsed({"w1", "w2"}) == "w1*1 w2*1");
  CHECK(collapsed({"a.00.w", "a.01.w"}) == "a.00.w*1 a.01.w*1");
  CHECK(collapsed({"a..w", "", "."}) == "a..w*1 *1 .*1");
  CHECK(collapsed({"a.1234567890.w", "a.1234567891.w"}) == "a.1234567890.w*1 a.1234567891.w*1");
}

TEST_CASE("collapse: several numbers only where every combination is there") {
  CHECK(collapsed({"l.0.e.0", "l.0.e.1", "l.1.e.0", "l.1.e.1"}) == "l.{0-1}.e.{0-1}*4");
  CHECK(collapsed({"l.0.e.0", "l.0.e.1", "l.1.e.0"}) == "l.0.e.{0-1}*2 l.1.e.0*1");
}

TEST_CASE("collapse: facts must be equal") {
  const std::vector<NamedItem> items = {{"l.0.w", "f32"}, {"l.1.w", "f16"}, {"l.2.w", "f32"}};
  const std::vector<NameGroup> groups = collapse_names(items);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].name == "l.{0,2}.w");
  CHECK(groups[0].members == std::vector<size_t>{0, 2});
  CHECK(groups[1].name == "l.1.w");
}
