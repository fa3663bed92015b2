// The table of ucl.md section 2, and the solving of sizes of section 4.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "tests/unit/layout/layout_testing.h"

namespace uckpt::layout {
namespace {

using testing::expand;
using testing::Program;

// Solves rule 0 of the text from tp fragments of these shapes.
struct Solved {
  Solved(const std::string& text, const std::vector<Shape>& shapes, Settings settings = {})
      : program(text, with_mesh(std::move(settings), shapes.size())) {
    std::vector<LocalShape> fragments;
    for (size_t i = 0; i < shapes.size(); ++i) fragments.push_back({at(i), shapes[i]});
    solver.emplace(*program.facts, program.scope(), program.rule().body.shape, std::move(fragments));
    for (bool again = true; again;) {
      again = solver->advance();
      program.facts->propagate();
      again |= solver->advance();
    }
    program.facts->take_defaults();
    solver->advance();
    while (!solver->solved() && solver->assume_even()) solver->advance();
    fine = solver->check(program.diagnostics);
  }
  static Settings with_mesh(Settings s, size_t ranks) {
    s.mesh["tp"] = static_cast<int64_t>(ranks);
    return s;
  }
  static Coordinate at(size_t rank) { return {{"tp", static_cast<int64_t>(rank)}}; }
  std::vector<int64_t> rows(size_t rank) const { return expand(solver->view(at(rank))); }

  Program program;
  std::optional<ShapeSolver> solver;
  bool fine = false;
};

std::string one_rule(const std::string& shape, const std::string& facts = "") {
  return cat("ucl 1\n", facts, "\nlayout l over tp { \"w\" ", shape, " }\n");
}

TEST_CASE("sizes: plain cuts take the shares that the fragments have") {
  const Solved even(one_rule("[o@tp, i]"), {{3, 2}, {3, 2}});
  CHECK(even.fine);
  CHECK(even.solver->logical() == Shape{6, 2});
  const Solved uneven(one_rule("[o@tp]"), {{3}, {1}, {0}});
  CHECK(uneven.fine);
  CHECK(uneven.solver->logical() == Shape{4});
  CHECK(uneven.rows(0) == std::vector<int64_t>{0, 1, 2});
  CHECK(uneven.rows(1) == std::vector<int64_t>{3});
  CHECK(uneven.rows(2).empty());
  const Solved row(one_rule("[o, i@tp]"), {{2, 2}, {2, 1}});
  CHECK(row.solver->logical() == Shape{2, 3});
  CHECK(row.rows(1) == std::vector<int64_t>{2, 5});
}

TEST_CASE("sizes: the examples of the central rule, rank 1 of tp = 2") {
  const std::string gr = "where g = 4, r = 2, d = 1, f = 4";
  const Solved interleaved(one_rule("[g@tp (q: r | k: 1 | v: 1) d]", gr), {{8}, {8}});
  CHECK(interleaved.rows(1) == std::vector<int64_t>{8, 9, 10, 11, 12, 13, 14, 15});
  const Solved plain(one_rule("[(q: g@tp r d | k: g@tp d | v: g@tp d)]", gr), {{8}, {8}});
  CHECK(plain.rows(1) == std::vector<int64_t>{4, 5, 6, 7, 10, 11, 14, 15});
  const Solved copied(one_rule("[(q: g@tp r d | k: g d | v: g d)]", gr), {{12}, {12}});
  CHECK(copied.rows(1) == std::vector<int64_t>{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  const Solved halves(one_rule("[(gate: f@tp | up: f@tp)]", gr), {{4}, {4}});
  CHECK(halves.rows(1) == std::vector<int64_t>{2, 3, 6, 7});
  const Solved flat(one_rule("[(gate: f | up: f)@tp]", gr), {{4}, {4}});
  CHECK(flat.rows(1) == std::vector<int64_t>{4, 5, 6, 7});
  const Solved padded(one_rule("[v pad(4*tp) @tp]", "where v = 10"), {{8}, {8}});
  CHECK(padded.solver->logical() == Shape{10});
  CHECK(padded.rows(1) == std::vector<int64_t>{8, 9, -1, -1, -1, -1, -1, -1});
}

TEST_CASE("sizes: given widths, and GPT-2's transposed fused weight") {
  const Solved widths(one_rule("[(q: 12@tp[6,6] | k: 4@tp[3,1] | v: 4@tp[2,2])]"), {{11}, {9}});
  CHECK(widths.fine);
  CHECK(widths.rows(1) == std::vector<int64_t>{6, 7, 8, 9, 10, 11, 15, 18, 19});
  const Solved gpt2(one_rule("[h, (q: n@tp d | k: n@tp d | v: n@tp d)]", "where n = 4, h = 1"),
                    {{1, 12}, {1, 12}});
  CHECK(gpt2.fine);
  CHECK(gpt2.rows(1) == std::vector<int64_t>{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23});
}

TEST_CASE("sizes: fewer groups than ranks") {
  const Solved flat(one_rule("[(g (q: r | k: 1 | v: 1) d)@tp]", "where g = 2, r = 4, d = 1"),
                    {{3}, {3}, {3}, {3}});
  CHECK(flat.rows(1) == std::vector<int64_t>{3, 4, 5});
  const std::string text =
      "ucl 1\nwhere g = 2, r = 4, d = 1\n"
      "layout l over tp = tg * tr { where tg = min(g, tp) \"w\" [g@tg (q: r@tr | k: 1 | v: 1) d] }\n";
  const Solved copied(text, {{4}, {4}, {4}, {4}});
  CHECK(copied.fine);
  CHECK(copied.rows(1) == std::vector<int64_t>{2, 3, 4, 5});  // q2 q3 k0 v0
}

TEST_CASE("sizes: equations give what is linear in the only unknown, whatever the order") {
  const std::string facts =
      "given heads from n_head, groups from n_group = heads\nwhere g = groups, r = heads / groups";
  Settings settings;
  settings.arguments = {{"n_head", 8}, {"n_group", 4}};
  const Solved fused(one_rule("[g@tp (q: r | k: 1 | v: 1) d, h]", facts), {{16, 3}, {16, 3}}, settings);
  CHECK(fused.fine);
  CHECK(fused.solver->sizes_text() == "g = 4, r = 2, d = 2, h = 3");
  settings.arguments = {{"n_head", 8}};
  const Solved mha(one_rule("[g@tp (q: r | k: 1 | v: 1) d, h]", facts), {{24, 3}, {24, 3}}, settings);
  CHECK(mha.fine);
  CHECK(mha.solver->sizes_text() == "g = 8, r = 1, d = 2, h = 3");
}

TEST_CASE("sizes: what does not agree is said whole") {
  const Solved shared(one_rule("[o@tp, h]", "where h = 3"), {{4, 2}, {4, 2}});
  CHECK_FALSE(shared.fine);
  CHECK(
      shared.program.diagnostics.text() ==
      R"(test.ucl:3:31: error: rank tp 0 holds 2 here ([4, 2]), but the rule gives 3 with o = 8, h = 3 [ucl.size_conflict]
    3 | layout l over tp { "w" [o@tp, h] }
      |                               ^
  hint: fragments of shape [4, 2]
1 error
)");
  const Solved unknown(one_rule("[g@tp (q: r | k: 1) d]"), {{6}, {6}});
  CHECK_FALSE(unknown.fine);
  CHECK(unknown.program.diagnostics.text().find("the size of `g`, `r`, `d` stays unknown") !=
        std::string::npos);
  const Solved rank(one_rule("[o@tp, i]"), {{6}, {6}});
  CHECK_FALSE(rank.fine);
  CHECK(rank.program.diagnostics.text().find("expected 2 dims, found fragments of shape [6]") !=
        std::string::npos);
  const Solved count(one_rule("[o@tp[1,2,3]]"), {{3}, {3}});
  CHECK_FALSE(count.fine);
  CHECK(count.program.diagnostics.text().find("expected 2 shares") != std::string::npos);
  const Solved differ(one_rule("[o@tp, h]"), {{4, 2}, {4, 3}});
  CHECK_FALSE(differ.fine);
}

}  // namespace
}  // namespace uckpt::layout
