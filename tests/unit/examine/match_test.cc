#include "lib/examine/match.h"

#include <doctest/doctest.h>

using namespace uckpt;

namespace {

using Paths = std::vector<std::string>;

// The partner of each path of the first, "" where there is none; then what is extra.
Paths partners(const Paths& first, const Paths& second) {
  const PathMatches matches = match_paths(first, second);
  Paths out;
  for (const auto& m : matches.second) out.push_back(m ? second[*m] : "");
  out.emplace_back("extra:");
  for (const uint32_t e : matches.extra) out.push_back(second[e]);
  return out;
}

}  // namespace

TEST_CASE("a path is the same tensor; a weight may be another kind of weight") {
  CHECK(partners({"fp32/a", "exp_avg/a", "buffer/b"}, {"exp_avg/a", "param/a", "param/b"}) ==
        Paths{"param/a", "exp_avg/a", "param/b", "extra:"});
  CHECK(partners({"exp_avg/a"}, {"fp32/a"}) == Paths{"", "extra:", "fp32/a"});
  CHECK(partners({"fp32/a"}, {"exp_avg/a"}) == Paths{"", "extra:", "exp_avg/a"});
  CHECK(partners({}, {"fp32/a"}) == Paths{"extra:", "fp32/a"});
}

TEST_CASE("no tensor is the partner of two") {
  CHECK(partners({"param/a", "fp32/a"}, {"fp32/a"}) == Paths{"", "fp32/a", "extra:"});
  CHECK(partners({"buffer/a", "fp32/a"}, {"param/a"}) == Paths{"", "param/a", "extra:"});
  CHECK(partners({"param/a"}, {"buffer/a", "fp32/a"}) == Paths{"fp32/a", "extra:", "buffer/a"});
}

TEST_CASE("a name may have slashes in it") {
  CHECK(split_path("param/a/b.c") == std::pair<std::string_view, std::string_view>("param", "a/b.c"));
  CHECK(partners({"fp32/a/b"}, {"param/a/b"}) == Paths{"param/a/b", "extra:"});
}
