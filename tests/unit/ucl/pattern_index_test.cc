// The index against trying each pattern.
#include "lib/ucl/pattern_index.h"

#include <doctest/doctest.h>

#include "tests/unit/ucl/naive_pattern.h"

using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;

TEST_CASE("the index finds what trying each pattern finds") {
  std::mt19937 random(3);
  size_t found = 0, covered = 0;
  uint64_t work = 0;
  for (int round = 0; round < 100; ++round) {
    std::vector<NamePattern> patterns;
    for (int i = 0; i < 60; ++i) patterns.push_back(pattern_of(random_pattern(random)));
    PatternIndex index;
    for (uint32_t i = 0; i < patterns.size(); ++i) index.add(patterns[i], i);

    for (int k = 0; k < 50; ++k) {
      const std::string name = random_name(random);
      std::vector<uint32_t> expected;
      for (uint32_t i = 0; i < patterns.size(); ++i)
        if (match(patterns[i], name)) expected.push_back(i);
      CAPTURE(name);
      CHECK(index.matching(name) == expected);
      found += expected.size();

      const NamePattern narrow = pattern_of(random_pattern(random));
      expected.clear();
      for (uint32_t i = 0; i < patterns.size(); ++i)
        if (covers(patterns[i], narrow)) expected.push_back(i);
      CAPTURE(narrow.text);
      CHECK(index.covering(narrow, work) == expected);
      covered += expected.size();
    }
  }
  CHECK(found > 5000);
  CHECK(covered > 5000);
}

TEST_CASE("many rules, many names") {
  std::vector<NamePattern> patterns;
  for (int i = 0; i < 10000; ++i)
    patterns.push_back(pattern_of(uckpt::cat("decoder.layers.{i}.module_", i, ".weight")));
  PatternIndex index;
  for (uint32_t i = 0; i < patterns.size(); ++i) index.add(patterns[i], i);
  for (uint32_t i = 0; i < 10000; ++i)
    CHECK(index.matching(uckpt::cat("decoder.layers.7.module_", i, ".weight")) == std::vector<uint32_t>{i});
  uint64_t work = 0;
  for (const NamePattern& p : patterns) CHECK(index.covering(p, work).size() == 1);
  CHECK(work < 100'000);
}
