// Rules over fragments: bodies, modifiers, copies, and every message of theirs.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <numeric>
#include <tuple>

#include "lib/base/text.h"
#include "tests/unit/layout/assemble_testing.h"

namespace uckpt::layout {
namespace {

using namespace testing;

Settings two_ranks() { return {{}, {}, {{"tp", 2}}}; }

std::string layout_of(const std::string& rules) { return cat("ucl 1\nlayout l over tp {\n", rules, "\n}\n"); }

TEST_CASE("assemble: blocks that every rank holds are copies, others are joined") {
  World w;
  const Array whole = made_up("w", {8, 2});  // q0..q3 k0 k1 v0 v1
  for (int64_t t = 0; t < 2; ++t) w.put(tp(t), "w", rows_of(whole, {2 * t, 2 * t + 1, 4, 5, 6, 7}));
  CHECK(w.join(layout_of("\"w\" [(q: 4@tp | k: 2 | v: 2), h]"), "l", two_ranks()) == "");
  CHECK(w.holds("w", whole));
  REQUIRE(w.tensor("w").copies.size() == 1);
  const Values copy = w.values(w.tensor("w").copies[0].pieces, 16);
  CHECK(std::isnan(copy[0]));
  CHECK(std::equal(copy.begin() + 8, copy.end(), whole.values.begin() + 8));
  CHECK(w.tensor("w").copies[0].what == "copy on rank tp 1");
}

TEST_CASE("assemble: shares inside of a group that is cut, where some ranks have none of it") {
  World w;
  const Array whole = made_up("w", {3, 2});
  for (int64_t t = 0; t < 3; ++t) {
    w.put({{"dp", 0}, {"tp", t}}, "w", rows_of(whole, {t}));
    w.catalog.ranks.push_back({{{"dp", 1}, {"tp", t}}, {}});
  }
  CHECK(w.join("ucl 1\nwhere x = 3\nlayout l over dp, tp { \"w\" [(x@tp)@dp[chunk], h] }\n", "l",
               {{}, {}, {{"dp", 2}, {"tp", 3}}}) == "");
  CHECK(w.holds("w", whole));
}

TEST_CASE("assemble: module weights of further ranks are replicas of the first one's") {
  World w;
  const Array whole = made_up("w", {4});
  for (int64_t t = 0; t < 2; ++t) {
    w.put(tp(t), "norm", whole);
    w.put_module(tp(t), {1, 2, 3, 4});
    w.put(tp(t), "column", whole);
    w.put_module(tp(t), {5, 6, 7, 8});
    w.put(tp(t), "half", whole);
    w.put_module(tp(t), {1, 2, 3, 4});
  }
  const std::string rules = "\"norm\" replicate\n\"column\" [o@tp]\n\"half\" [(a: 4@tp[2,2] | b: 2)]";
  CHECK(w.join(layout_of(rules), "l", two_ranks()) == "");
  const auto& norm = w.tensor("norm").copies;  // the other master, the module weight, its replica
  REQUIRE(norm.size() == 3);
  CHECK_FALSE(norm[0].is_module);
  CHECK((norm[1].is_module && !norm[1].is_replica && norm[1].what == "module weight"));
  CHECK((norm[2].is_module && norm[2].is_replica && norm[2].what == "module weight on rank tp 1"));
  REQUIRE(w.tensor("column").copies.size() == 1);
  CHECK_FALSE(w.tensor("column").copies[0].is_replica);
  const auto& half = w.tensor("half").copies;
  REQUIRE(half.size() == 3);
  CHECK(half[2].is_replica);
  REQUIRE(half[2].pieces.count == 1);  // only the block that both have
  const auto axes = w.catalog.axes_of(w.catalog.pieces_of(half[2].pieces)[0]);
  CHECK(axes[0].start * (axes.size() > 1 ? axes[1].size : 1) == 4);
}

TEST_CASE("assemble: partial, unique, opaque, drop, values, states, numbers") {
  World w;
  const Array a = made_up("a", {4}), b = made_up("b", {4}), small = made_up("small", {2});
  for (int64_t t = 0; t < 2; ++t) {
    w.put(tp(t), "mean", t ? b : a);
    w.put(tp(t), "bias", a);
    w.put(tp(t), "bias", a, "exp_avg");
    w.put(tp(t), "bias", a, "exp_avg_sq");
    w.put(tp(t), "norm", a);
    w.put(tp(t), "dropped", t ? a : b);
    w.put(tp(t), "opaque", b);
    w.put(tp(t), "odd", a);
    w.put(tp(t), "odd", small, "exp_avg");
    w.put(tp(t), "odd", made_up("step", {}), "step");
  }
  w.put(tp(1), "owned", a);
  const std::string rules =
      "\"mean\" partial mean over tp\n\"bias\" [...] * 1/tp\n\"norm\" [...] + 1\n\"dropped\" "
      "drop\n\"opaque\" opaque\n"
      "\"owned\" unique\n\"odd\" [r@tp] states exp_avg\n\"odd\" replicate";
  CHECK(w.join(layout_of(rules), "l", two_ranks()) == "");
  const Tensor& mean = w.tensor("mean");
  REQUIRE(mean.averaged_with.size() == 1);
  CHECK(w.values(mean.pieces, 4) == a.values);
  CHECK(w.values(mean.averaged_with[0], 4) == b.values);
  CHECK(mean.copies.empty());
  CHECK(w.tensor("bias").factor == 2);
  CHECK(w.tensor("bias", "exp_avg").factor == 0.5);
  CHECK(w.tensor("bias", "exp_avg_sq").factor == 0.25);
  CHECK(w.tensor("norm").summand == -1);
  CHECK_THROWS(w.tensor("dropped"));
  CHECK(w.catalog.warnings == std::vector<std::string>{"`dropped` is left out: a rule drops it"});
  CHECK(w.holds("opaque", b));
  CHECK(w.holds("owned", a));
  CHECK(w.tensor("odd", "exp_avg").shape == Shape{4});
  CHECK(w.holds("odd", a));
  CHECK(w.tensor("odd", "step").shape.empty());
}

TEST_CASE("assemble: what is unique or opaque and lies on several ranks is compared") {
  for (const std::string body : {"unique", "opaque"}) {
    World w;
    for (int64_t t = 0; t < 2; ++t) w.put(tp(t), "owned", made_up(cat("owned", t), {4}));
    CHECK(w.join(layout_of(cat("\"owned\" ", body)), "l", two_ranks()) == "");
    CHECK(w.holds("owned", made_up("owned0", {4})));
    const auto& copies = w.tensor("owned").copies;
    REQUIRE(copies.size() == 1);
    CHECK(copies[0].what == cat("`", body, "` tensor on a further rank, tp 1"));
    CHECK(w.values(copies[0].pieces, 4) == made_up("owned1", {4}).values);
  }

  World uneven;
  for (int64_t t = 0; t < 2; ++t) uneven.put(tp(t), "owned", made_up("owned", {4 + t}));
  const std::string text = uneven.join(layout_of("\"owned\" unique"), "l", two_ranks());
  CHECK_MESSAGE(text.find("error: `owned`: rank tp 1 holds 5 here ([5]), but the rule gives 4") != text.npos,
                text);
  CHECK_MESSAGE(text.find("^^^^^^") != text.npos, text);  // under `unique`, which has no shape of its own
}

TEST_CASE("assemble: `when` chooses between rules, by mesh sizes and givens") {
  const std::string text =
      "ucl 1\ngiven tie from tie_weights = 0\nlayout l over tp {\n"
      "\"w\" [o@tp] when tie, tp > 1\n\"w\" replicate when not tie\n}\n";
  for (const int64_t tie : {0, 1}) {
    World w;
    for (int64_t t = 0; t < 2; ++t) w.put(tp(t), "w", made_up("w", {2}));
    Settings s = two_ranks();
    if (tie) s.arguments["tie_weights"] = 1;
    CHECK(w.join(text, "l", s) == "");
    CHECK(w.tensor("w").shape == Shape{tie ? 4 : 2});
  }
}

// Layers over virtual stages: each rank's files count from 0 at each coordinate.
World stages(const std::vector<int64_t>& layers, int64_t virtual_stages) {
  World w;
  int64_t i = 0;
  for (int64_t vp = 0; vp < virtual_stages; ++vp)
    for (size_t pp = 0; pp < layers.size(); ++pp)
      for (int64_t local = 0; local < layers[pp]; ++local)
        w.put({{"pp", static_cast<int64_t>(pp)}, {"vp", vp}}, cat("layers.", local, ".w"),
              made_up(cat("layer", i++), {2}));
  return w;
}

TEST_CASE("assemble: layers over virtual stages, even and uneven") {
  const auto text = [](const std::string& index) {
    return cat("ucl 1\nlayout l over pp, vp {\n", index, "\n\"layers.{i}.w\" [...]\n}\n");
  };
  for (const auto& [index, layers, vp] : std::vector<std::tuple<std::string, std::vector<int64_t>, int64_t>>{
           {"index i @(vp, pp) local", {2, 2}, 2},
           {"index i @(vp, pp[1,2,1]) local", {1, 2, 1}, 2},
           {"index i @pp[3,4,4,3] local", {3, 4, 4, 3}, 1}}) {
    World w = stages(layers, vp);
    const Settings settings = {{}, {}, {{"pp", static_cast<int64_t>(layers.size())}, {"vp", vp}}, {}};
    CHECK(w.join(text(index), "l", settings) == "");
    const int64_t all = vp * std::accumulate(layers.begin(), layers.end(), int64_t{0});
    CHECK(w.catalog.tensors.size() == static_cast<size_t>(all));
    for (int64_t i = 0; i < all; ++i) {
      CHECK(w.holds(cat("layers.", i, ".w"), made_up(cat("layer", i), {2})));
      CHECK(w.tensor(cat("layers.", i, ".w")).copies.empty());
    }
  }
}

TEST_CASE("assemble: the sizes in an index are held against what the ranks have") {
  const auto said_of = [](const std::string& index, const std::vector<int64_t>& layers, int64_t vp) {
    World w = stages(layers, vp);
    return w.join(
        cat("ucl 1\nlayout l over pp, vp {\nindex i @", index, " local\n\"layers.{i}.w\" [...]\n}\n"), "l",
        {{}, {}, {{"pp", static_cast<int64_t>(layers.size())}, {"vp", vp}}, {}});
  };
  CHECK(said_of("pp[3,2,2]", {2, 3, 2}, 1) ==
        R"(spec.ucl:3:10: error: expected 3,2,2 numbers of `i` on the ranks of `pp`, found 2,3,2 [ucl.shares]
    3 | index i @pp[3,2,2] local
      |          ^^^^^^^^^
  hint: `pp` without sizes takes what the files have
1 error
)");
  CHECK(
      said_of("pp[even]", {2, 3, 2}, 1) ==
      R"(spec.ucl:3:10: error: expected as many numbers of `i` on all ranks of `pp`, found 2,3,2 [ucl.shares]
    3 | index i @pp[even] local
      |          ^^^^^^^^
  hint: `pp` without sizes takes what the files have
1 error
)");
  const std::string chunk = said_of("pp[chunk]", {2, 3, 2}, 1);
  CHECK_MESSAGE(chunk.find("expected 3,3,1 numbers of `i`") != chunk.npos, chunk);
  const std::string few = said_of("pp[3,4]", {2, 3, 2}, 1);
  CHECK_MESSAGE(few.find("expected 3,4 numbers of `i`") != few.npos, few);
  CHECK(said_of("(vp[even], pp[2,3,2])", {2, 3, 2}, 2) == "");
  const std::string outer = said_of("(vp[6,8], pp)", {2, 3, 2}, 2);
  CHECK_MESSAGE(outer.find("expected 6,8 numbers of `i` on the ranks of `vp`, found 7,7") != outer.npos,
                outer);

  // Global numbers, which each rank has some of.
  World w;
  for (int64_t i = 0; i < 3; ++i) w.put({{"pp", i / 2}}, cat("layers.", i, ".w"), made_up("w", {2}));
  const auto global = [](World world, const std::string& index) {
    return world.join(cat("ucl 1\nlayout l over pp { index i @", index, " \"layers.{i}.w\" [...] }\n"), "l",
                      {{}, {}, {{"pp", 2}}, {}});
  };
  CHECK(global(w, "pp[2,1]") == "");
  const std::string even = global(w, "pp[even]");
  CHECK_MESSAGE(even.find("on all ranks of `pp`, found 2,1") != even.npos, even);
}

TEST_CASE("assemble: an index in a layout that uses another replaces its own") {
  World w = stages({1, 2}, 1);
  const std::string text =
      "ucl 1\nlayout base over pp { index i @pp  \"layers.{i}.w\" [...] }\n"
      "layout l over pp { use base  index i @pp[1,2] local }\n";
  CHECK(w.join(text, "l", {{}, {}, {{"pp", 2}}, {}}) == "");
  for (int64_t i = 0; i < 3; ++i) CHECK(w.holds(cat("layers.", i, ".w"), made_up(cat("layer", i), {2})));
}

TEST_CASE("assemble: a used rule whose names are taken above is overridden, not unused") {
  const auto joined = [](const std::string& own) {
    World w;
    for (int64_t t = 0; t < 2; ++t) {
      for (const std::string i : {"0", "1"}) w.put(tp(t), cat("layers.", i, ".w"), made_up(i, {2}));
      w.put(tp(t), "norm", made_up("norm", {2}));
    }
    const std::string text =
        w.join(cat("ucl 1\nlayout base over tp {\n\"layers.{i}.w\" replicate\n\"norm\" [n@tp]\n}\n",
                   "layout l over tp {\n", own, "\n}\n"),
               "l", two_ranks());
    return std::pair(text, text.empty() ? w.tensor("norm").shape : Shape());
  };
  const auto all = joined("\"norm\" replicate\nuse base");
  CHECK(all.first == "");
  CHECK(all.second == Shape{2});
  // Of some numbers alone: the used rule has the others.
  CHECK(joined("\"layers.0.w\" replicate\n\"norm\" replicate\nuse base").first == "");
  // A rule below `use` does not come first, so it is unused.
  CHECK(joined("use base\n\"norm\" replicate").first ==
        R"(spec.ucl:8:1: error: the rule "norm" takes nothing of the checkpoint [ucl.unused_rule]
    8 | "norm" replicate
      | ^^^^^^
  hint: write `optional` before it if that may be
1 error
)");
  // What the checkpoint lacks is told as ever.
  CHECK(joined("\"layers.{i}.w\" replicate\n\"norm\" replicate\n\"gone\" replicate\nuse base")
            .first.find("\"gone\" takes nothing") != std::string::npos);
}

std::string said(const std::string& rules, const std::function<void(World&)>& fill) {
  World w;
  fill(w);
  return w.join(layout_of(rules), "l", two_ranks());
}

TEST_CASE("assemble: no layer lacks a text of a choice that others have") {
  const auto fill = [](World& w) {
    for (int64_t t = 0; t < 2; ++t) {
      w.put(tp(t), "layers.0.norm.weight", made_up("a", {2}));
      w.put(tp(t), "layers.0.norm.bias", made_up("b", {2}));
      w.put(tp(t), "layers.1.norm.weight", made_up("c", {2}));
      w.put(tp(t), "head.weight", made_up("d", {2}));
    }
  };
  const std::string lost =
      said("\"layers.{i}.norm.{p:weight|bias}\" replicate\n\"head.{p:weight|bias}\" replicate", fill);
  CHECK(
      lost.find("nothing of the checkpoint fits \"layers.{i}.norm.{p:weight|bias}\" with p = bias at i = 1, "
                "which other rules have [ucl.missing_number]") != std::string::npos);
  CHECK(lost.find("head") == std::string::npos);
  CHECK(said("optional \"layers.{i}.norm.{p:weight|bias}\" replicate\n"
             "optional \"head.{p:weight|bias}\" replicate",
             fill) == "");
}

TEST_CASE("assemble: names without a rule, rules without a name, numbers that are missing") {
  const auto fill = [](World& w) {
    for (int64_t t = 0; t < 2; ++t) {
      w.put(tp(t), "layers.0.a", made_up("a", {2}));
      w.put(tp(t), "layers.1.a", made_up("b", {2}));
      w.put(tp(t), "layers.0.b", made_up("c", {2}));
      w.put(tp(t), "extra", made_up("d", {2}));
    }
  };
  CHECK(said("\"layers.{i}.a\" replicate\n\"layers.{i}.b\" replicate\n\"gone\" replicate", fill) ==
        R"(spec.ucl:2:8: error: no rule takes the name `extra` [ucl.no_rule]
    2 | layout l over tp {
      |        ^
  hint: a fallback is written, never assumed: `"**" replicate`
spec.ucl:4:1: error: nothing of the checkpoint fits "layers.{i}.b" at i = 1, which other rules have [ucl.missing_number]
    4 | "layers.{i}.b" replicate
      | ^^^^^^^^^^^^^^
  hint: write `optional` before the rule if that may be
spec.ucl:5:1: error: the rule "gone" takes nothing of the checkpoint [ucl.unused_rule]
    5 | "gone" replicate
      | ^^^^^^
  hint: write `optional` before it if that may be
3 errors
)");
}

TEST_CASE("assemble: numbers of an index that are missing") {
  const auto said = [](const std::vector<std::pair<int64_t, int64_t>>& experts_of_layers, const char* index,
                       Settings settings) {
    World w;
    for (const auto& [layer, expert] : experts_of_layers)
      w.put({{"ep", 0}}, cat("l.", layer, ".e.", expert), made_up("e", {2}));
    settings.mesh = {{"ep", 1}};
    const std::string text = cat("ucl 1\ngiven experts from num_experts\nlayout l over ep {\n", index,
                                 "\n  index i @ep\n  \"l.{i}.e.{e}\" [h]\n}\n");
    const std::string out = w.join(text, "l", settings);
    return out.substr(0, out.find(" [ucl."));
  };
  const Settings none;
  Settings four;
  four.arguments["num_experts"] = 4;
  CHECK(said({{0, 0}, {0, 1}, {1, 0}, {1, 1}}, "index e @ep", none) == "");
  CHECK(said({{0, 0}, {0, 2}}, "index e @ep", none) ==
        "spec.ucl:4:7: error: nothing of the checkpoint has e = 1, and other names have 2");
  CHECK(said({{0, 1}}, "index e @ep local", none) ==
        "spec.ucl:4:7: error: nothing of the checkpoint has e = 0, and other names have 1");
  CHECK(
      said({{0, 0}, {0, 1}, {1, 0}}, "index e @ep", none) ==
      "spec.ucl:6:3: error: nothing of the checkpoint fits \"l.{i}.e.{e}\" at i = 1, e = 1, and other names "
      "have these numbers");
  CHECK(said({{0, 0}, {0, 1}}, "index e < experts @ep", none) == "");
  CHECK(said({{0, 0}, {0, 1}}, "index e < experts @ep", four) ==
        "spec.ucl:4:7: error: expected experts = 4 numbers of `e`, found 2");
  CHECK(said({{0, 0}, {0, 1}}, "index e < experts / 2 @ep", four) == "");
}

TEST_CASE("assemble: fragments that are missing, misplaced, of another shape or type") {
  const auto one_missing = [](World& w) {
    w.put(tp(0), "w", made_up("w", {2}));
    w.put(tp(1), "x", made_up("x", {2}));
    w.put(tp(0), "x", made_up("x", {2}));
  };
  CHECK(
      said("\"w\" replicate\n\"x\" replicate", one_missing) ==
      R"(spec.ucl:3:1: error: `w`: rank tp 1 has no fp32 of it, expected one of shape [2] [ucl.missing_fragment]
    3 | "w" replicate
      | ^^^
1 error
)");
  CHECK(said("\"w\" replicate on tp first\n\"x\" replicate on tp last", one_missing) ==
        R"(spec.ucl:4:1: error: `x`: it lies on rank tp 0, where its rule has none [ucl.misplaced]
    4 | "x" replicate on tp last
      | ^^^
1 error
)");
  const auto shapes = [](World& w) {
    for (int64_t t = 0; t < 2; ++t) {
      w.put(tp(t), "w", made_up("w", {2}));
      w.put(tp(t), "w", made_up("w", {3}), "exp_avg");
    }
  };
  CHECK(
      said("\"w\" replicate", shapes) ==
      R"(spec.ucl:3:1: error: `w`: its exp_avg has the shape [3] on rank tp 0, its fp32 [2] [ucl.state_shape]
    3 | "w" replicate
      | ^^^
  hint: a state of another shape takes a rule of its own, with `states`
1 error
)");
}

TEST_CASE("assemble: `dtype` is the type of the model's weights, or of the states that the rule names") {
  const auto fill = [](World& w) {
    for (int64_t t = 0; t < 2; ++t) {
      w.put(tp(t), "router", made_up("r", {2}));
      w.put_module(tp(t), {1, 2});
      w.put(tp(t), "router", made_up("m", {2}), "exp_avg");
      w.put(tp(t), "frozen", made_up("f", {2}), "param");
    }
  };
  CHECK(said("\"router\" replicate dtype bf16\n\"frozen\" replicate dtype fp32", fill) == "");
  CHECK(said("\"router\" replicate dtype fp32 states fp32, exp_avg\n\"frozen\" replicate", fill) == "");
  CHECK(
      said("\"router\" replicate dtype fp32\n\"frozen\" [o@tp] dtype fp16", fill) ==
      R"(spec.ucl:3:26: error: `router`: its module weight is bf16 on rank tp 0, expected fp32 [ucl.dtype_differs]
    3 | "router" replicate dtype fp32
      |                          ^^^^
spec.ucl:4:23: error: `frozen`: its param is fp32 on rank tp 0, expected fp16 [ucl.dtype_differs]
    4 | "frozen" [o@tp] dtype fp16
      |                       ^^^^
2 errors
)");
  CHECK(said("\"router\" replicate dtype bf16 states exp_avg\n\"**\" replicate", fill) ==
        R"(spec.ucl:3:26: error: `router`: its exp_avg is fp32 on rank tp 0, expected bf16 [ucl.dtype_differs]
    3 | "router" replicate dtype bf16 states exp_avg
      |                          ^^^^
1 error
)");
}

TEST_CASE("assemble: a size that no whole number gives, a factor of integers, a tie to nothing") {
  const auto odd = [](World& w) {
    for (int64_t t = 0; t < 2; ++t) w.put(tp(t), "w", made_up("w", {3}));
  };
  CHECK(said("where two = 2\n\"w\" [o two]", odd) ==
        R"(spec.ucl:4:6: error: `w`: rank tp 0 holds 3 here: `o` would have to be 3/2 [ucl.size_conflict]
    4 | "w" [o two]
      |      ^^^^^
  hint: fragments of shape [3]
1 error
)");
  CHECK(said("\"w\" tied to \"x\"", odd) ==
        R"(spec.ucl:3:5: error: `w` is tied to "x", of which the checkpoint has no fp32 [ucl.tied_to_nothing]
    3 | "w" tied to "x"
      |     ^^^^^^^^^^^
1 error
)");
}

TEST_CASE("assemble: ten thousand rules over a hundred thousand fragments") {
  World w;
  const Array a = made_up("a", {4, 2});
  std::string rules;
  for (int k = 0; k < 10'000; ++k) {
    rules += cat("\"layers.{i}.m_", k, ".w\" [o@tp, i", k, "]\n");
    for (int i = 0; i < 5; ++i)
      for (int64_t t = 0; t < 2; ++t) w.put(tp(t), cat("layers.", i, ".m_", k, ".w"), a);
  }
  const auto started = std::chrono::steady_clock::now();
  CHECK(w.join(layout_of(rules), "l", two_ranks()) == "");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  MESSAGE(seconds, " s");
  CHECK(seconds < 60);  // 2 in a release build; here are sanitizers, and others at work
  CHECK(w.catalog.tensors.size() == 50'000);
  CHECK(w.tensor("layers.4.m_9999.w").shape == Shape{8, 2});
}

TEST_CASE("assemble: fragments that the input describes box by box need no rule") {
  // Three heads over two ranks: the middle one on both; and a scale.
  const Array whole = made_up("w", {6, 2});
  World w;
  w.put(tp(0), "w", rows_of(whole, {0, 1, 2, 3}));
  w.put(tp(1), "w", rows_of(whole, {4, 5, 2, 3}));
  w.put(tp(0), "w", rows_of(whole, {0, 1, 2, 3}), "exp_avg");
  w.put(tp(1), "w", rows_of(whole, {4, 5, 2, 3}), "exp_avg");
  w.catalog.scattered["w"] = {{6, 2},
                              {{{{2, 2}, {2, 1}, {2, 1}, 0, 0}, {{2, 2}, {2, 1}, {2, 1}, 4, 4}},
                               {{{2, 2}, {2, 1}, {2, 1}, 8, 0}, {{2, 2}, {2, 1}, {2, 1}, 4, 4}}},
                              0.5};
  CHECK(w.join(layout_of("optional \"**\" replicate"), "l", two_ranks()) == "");
  CHECK(w.holds("w", whole));
  CHECK(w.tensor("w").factor == 2);
  CHECK(w.tensor("w", "exp_avg").factor == 0.5);
  REQUIRE(w.tensor("w").copies.size() == 1);
  CHECK(w.values(w.tensor("w").copies[0].pieces, 12)[4] == whole.values[4]);
  for (const ScatteredBox& bad :
       std::vector{ScatteredBox{{2, 2}, {2, 1}, {1, 1}, 8, 0}, ScatteredBox{{2, 2}, {2, 1}, {2, 1}, 8, 6}}) {
    World v;
    v.put(tp(0), "w", rows_of(whole, {0, 1, 2, 3}));
    v.put(tp(1), "w", rows_of(whole, {4, 5, 2, 3}));
    v.catalog.scattered["w"] = {{6, 2}, {{bad}, {bad}}, 1};
    CHECK_THROWS_AS(v.join(layout_of("optional \"**\" replicate"), "l", two_ranks()), Error);
  }
}

TEST_CASE("assemble: a rule that was given goes before what the input describes box by box") {
  const Array whole = made_up("w", {6, 2});
  const std::string text = layout_of("\"w\" [r@tp, c]");
  for (const bool is_given : {false, true}) {
    World w;
    for (const std::string name : {"w", "z"}) {
      w.put(tp(0), name, rows_of(whole, {0, 1, 2}));
      w.put(tp(1), name, rows_of(whole, {3, 4, 5}));
      w.catalog.scattered[name] = {
          {6, 2}, {{{{3, 2}, {2, 1}, {2, 1}, 0, 0}}, {{{3, 2}, {2, 1}, {2, 1}, 6, 0}}}, 1};
    }
    if (is_given) w.leave_to_rules(text, "l", two_ranks());
    CHECK(w.catalog.scattered.contains("w") != is_given);
    CHECK((w.join(text, "l", two_ranks()) == "") == is_given);  // else the rule takes nothing
    CHECK(w.holds("z", whole));
    if (is_given) CHECK(w.holds("w", whole));
  }
}

TEST_CASE("assemble: what the input has joined itself is whole, and its padding goes") {
  World w;
  const Array whole = made_up("v", {10, 2}), gated = made_up("g", {8, 1});
  std::vector<int64_t> padded = range(0, 10);
  padded.resize(16, -1);
  w.put({}, "v", rows_of(whole, padded));
  w.put({}, "g", gated);
  Settings settings = two_ranks();
  settings.is_joined = true;
  CHECK(w.join("ucl 1\nwhere v = 10\nlayout l over tp { \"v\" [v pad(4*tp) @tp, h]  "
               "\"g\" [(gate: f@tp | up: f@tp), 1] }\n",
               "l", settings) == "");
  CHECK(w.holds("v", whole));
  CHECK(w.holds("g", gated));
  World other;  // of a format that undoes no such cut, the mark is an error
  other.put({}, "g", gated);
  CHECK(other.join(layout_of("\"g\" [f@tp, 1]"), "l", two_ranks()).find("[ucl.axis_undone]") !=
        std::string::npos);
}

}  // namespace
}  // namespace uckpt::layout
