// Shape expressions against a reference that handles elements one by one, as numpy's reshape, concatenate and
// split would.
#include <doctest/doctest.h>

#include <random>
#include <set>

#include "lib/base/text.h"
#include "lib/layout/boxes.h"
#include "tests/unit/layout/expression_testing.h"
#include "tests/unit/layout/layout_testing.h"

namespace uckpt::layout {
namespace {

using testing::expand;
using testing::Held;
using testing::Program;
using testing::Sampler;

TEST_CASE("view: random expressions hold what the reference holds") {
  int tried = 0;
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    Sampler sampler(seed);
    const Coordinate mesh = {{"tp", sampler.pick(1, 4)}, {"dp", sampler.pick(1, 3)}};
    const bool first_has_mesh = sampler.pick(0, 1);
    const auto rows =
        sampler.dim(2, first_has_mesh ? std::vector<std::string>{"tp", "dp"} : std::vector<std::string>{});
    const auto columns =
        sampler.dim(1, first_has_mesh ? std::vector<std::string>{} : std::vector<std::string>{"dp", "tp"});
    const std::string shape = cat("[", sampler.text(rows), ", ", sampler.text(columns), "]");
    const std::string text =
        cat("ucl 1\nwhere ", sampler.where(), "\nlayout l over tp, dp { \"w\" ", shape, " }\n");
    CAPTURE(text);
    CAPTURE(seed);
    const Coordinate first = {{"tp", 0}, {"dp", 0}}, alone = {{"tp", 1}, {"dp", 1}};
    const Held all_rows = Sampler::held(rows, first, alone),
               all_columns = Sampler::held(columns, first, alone);
    if (all_rows.elements.size() * all_columns.elements.size() > 3000) continue;
    ++tried;
    Program program(text, {{}, {}, mesh});
    for (int64_t tp = 0; tp < mesh.at("tp"); ++tp) {
      for (int64_t dp = 0; dp < mesh.at("dp"); ++dp) {
        const Coordinate at = {{"tp", tp}, {"dp", dp}};
        const Held r = Sampler::held(rows, at, mesh), c = Sampler::held(columns, at, mesh);
        const Shape local = {static_cast<int64_t>(r.elements.size()),
                             static_cast<int64_t>(c.elements.size())};
        ShapeSolver solver(*program.facts, program.scope(), program.rule().body.shape, {{at, local}});
        solver.advance();
        REQUIRE(solver.solved());
        ucl::Diagnostics said;
        const bool fine = solver.check(said);
        INFO(said.text());
        REQUIRE(fine);
        CHECK(solver.logical() == Shape{r.whole, c.whole});
        CHECK(solver.local(at) == local);
        std::vector<int64_t> expected;
        for (const int64_t a : r.elements)
          for (const int64_t b : c.elements) expected.push_back(a < 0 || b < 0 ? -1 : a * c.whole + b);
        CHECK(expand(solver.view(at)) == expected);
      }
    }
  }
  CHECK(tried > 1000);
}

TEST_CASE("boxes: random nests become boxes of the same elements") {
  std::mt19937 random(7);
  const auto pick = [&](int64_t a, int64_t b) {
    return std::uniform_int_distribution<int64_t>(a, b)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    const int64_t numel = pick(1, 400);
    std::vector<Walk> nest;
    int64_t reach = 0;  // furthest element, so that the nest stays inside
    for (int64_t i = pick(0, 3); i > 0; --i) {
      const Walk w{pick(1, 4), pick(1, 60), pick(1, 50)};
      if (reach + (w.count - 1) * w.to >= numel) continue;
      reach += (w.count - 1) * w.to;
      nest.push_back(w);
    }
    const int64_t begin = pick(0, numel - 1 - reach);
    std::multiset<std::pair<int64_t, int64_t>> expected, found;
    std::vector<std::pair<int64_t, int64_t>> at = {{begin, 1000}};
    for (const Walk& w : nest) {
      std::vector<std::pair<int64_t, int64_t>> next;
      for (const auto& [to, from] : at)
        for (int64_t i = 0; i < w.count; ++i) next.emplace_back(to + i * w.to, from + i * w.from);
      at = next;
    }
    expected.insert(at.begin(), at.end());
    to_boxes(numel, begin, 1000, nest, [&](int64_t from, std::span<const Axis> axes) {
      std::vector<std::pair<int64_t, int64_t>> inside = {{0, from}};
      int64_t product = 1;
      for (const Axis& a : axes) {
        product *= a.size;
        REQUIRE(a.start + a.extent <= a.size);
        std::vector<std::pair<int64_t, int64_t>> next;
        for (const auto& [to, f] : inside)
          for (int64_t i = 0; i < a.extent; ++i)
            next.emplace_back(to * a.size + a.start + i, f + i * a.stride);
        inside = next;
      }
      REQUIRE(product == numel);
      found.insert(inside.begin(), inside.end());
    });
    CHECK(found == expected);
  }
}

}  // namespace
}  // namespace uckpt::layout
