// Whole tensors cut for the ranks of a target: the tables of ucl.md, every body and modifier, random shapes.
#include <doctest/doctest.h>

#include <functional>

#include "lib/base/text.h"
#include "tests/unit/layout/distribute_testing.h"
#include "tests/unit/layout/expression_testing.h"

namespace uckpt::layout {
namespace {

using namespace testing;
using Elements = std::vector<int64_t>;

Coordinate pp(int64_t place) { return {{"pp", place}}; }
Settings on_mesh(Coordinate mesh) { return {{}, {}, std::move(mesh)}; }

// What a rank of tp = 2 holds of a numbered tensor.
struct One {
  One(const std::string& shape, const Shape& whole, const std::string& facts = "",
      Coordinate mesh = {{"tp", 2}}) {
    std::string axes;
    for (const auto& [axis, size] : mesh) axes += cat(axes.empty() ? "" : ", ", axis);
    target.put_numbered("w", whole);
    const std::string text = cat("ucl 1\n", facts, "\nlayout l over ", axes, " { \"w\" ", shape, " }\n");
    CAPTURE(text);
    REQUIRE(target.cut(text, on_mesh(mesh)) == "");
  }
  Elements rank(const Coordinate& at) const { return target.elements(at, "w"); }
  Elements rank(int64_t place) const { return rank(tp(place)); }
  Shape shape(int64_t place) const { return target.shard(tp(place), "w").shape; }
  Target target;
};

TEST_CASE("distribute: the shapes of ucl.md, section 2, as rank 1 of tp = 2 holds them") {
  const std::string sizes = "where g = 4, r = 2, d = 1, f = 4";
  // q0 q1 k0 v0  q2 q3 k1 v1  q4 q5 k2 v2  q6 q7 k3 v3
  CHECK(One("[g@tp (q: r | k: 1 | v: 1) d, h]", {16, 1}, sizes).rank(1) == range(8, 16));
  // q0 … q7  k0 … k3  v0 … v3
  CHECK(One("[(q: g@tp r d | k: g@tp d | v: g@tp d), h]", {16, 1}, sizes).rank(1) ==
        Elements{4, 5, 6, 7, 10, 11, 14, 15});
  CHECK(One("[(q: g@tp r d | k: g d | v: g d), h]", {16, 1}, sizes).rank(1) ==
        Elements{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  CHECK(One("[(gate: f@tp | up: f@tp), h]", {8, 1}, sizes).rank(1) == Elements{2, 3, 6, 7});
  CHECK(One("[(gate: f | up: f)@tp, h]", {8, 1}, sizes).rank(1) == Elements{4, 5, 6, 7});
  const One padded("[v pad(4*tp) @tp, h]", {10, 1});
  CHECK(padded.rank(1) == Elements{8, 9, -1, -1, -1, -1, -1, -1});
  CHECK(padded.shape(1) == Shape{8, 1});
  CHECK(padded.target.shard(tp(1), "w").full_shape == Shape{16, 1});
  CHECK_FALSE(padded.target.shard(tp(0), "w").is_padded);
  const One nested("[o@(tp, dp[chunk]), i]", {10, 1}, "", {{"dp", 2}, {"tp", 2}});
  CHECK(nested.rank({{"dp", 0}, {"tp", 1}}) == Elements{5, 6, 7});
  CHECK(nested.rank({{"dp", 1}, {"tp", 1}}) == Elements{8, 9});
}

TEST_CASE("distribute: the cases of ucl.md, section 2") {
  CHECK(One("[o@tp, i]", {4, 2}).rank(1) == Elements{4, 5, 6, 7});
  CHECK(One("[o, i@tp]", {2, 4}).rank(1) == Elements{2, 3, 6, 7});
  CHECK(One("[o@tp, i@dp]", {4, 4}, "", {{"dp", 2}, {"tp", 2}}).rank({{"dp", 1}, {"tp", 0}}) ==
        Elements{2, 3, 6, 7});
  const One given("[(q: 12@tp[6,6] | k: 4@tp[3,1] | v: 4@tp[2,2]), h]", {20, 1});
  CHECK(given.rank(0) == Elements{0, 1, 2, 3, 4, 5, 12, 13, 14, 16, 17});
  CHECK(given.rank(1) == Elements{6, 7, 8, 9, 10, 11, 15, 18, 19});
  CHECK(One("[h, (q: n@tp d | k: n@tp d | v: n@tp d)]", {1, 12}, "where d = 1").rank(1) ==
        Elements{2, 3, 6, 7, 10, 11});
  CHECK(One("[..., (q: n@tp d | k: n@tp d | v: n@tp d)]", {12}, "where d = 1").rank(1) ==
        Elements{2, 3, 6, 7, 10, 11});
  CHECK(One("[e@ep, f, h]", {4, 2, 1}, "", {{"ep", 2}}).rank(Coordinate{{"ep", 1}}) == Elements{4, 5, 6, 7});
  CHECK(One("[h, e@ep (gate: f@etp | up: f@etp)]", {1, 16}, "where f = 4", {{"ep", 2}, {"etp", 2}})
            .rank({{"ep", 1}, {"etp", 1}}) == Elements{10, 11, 14, 15});
  // Shares: even, ceil-sized with an empty one, explicit; sizes that only shares tell.
  CHECK(One("[o@tp[even]]", {4}).rank(1) == Elements{2, 3});
  const One chunk("[o@tp[chunk], i]", {4, 1}, "", {{"tp", 3}});
  CHECK(chunk.rank(1) == Elements{2, 3});
  CHECK(chunk.target.find(tp(2), "w") == nullptr);
  const One sizes("[(a: x@tp[1,3] | b: y@tp[2,0])]", {6});
  CHECK(sizes.rank(0) == Elements{0, 4, 5});
  CHECK(sizes.rank(1) == Elements{1, 2, 3});
}

TEST_CASE("distribute: the hard cases of ucl.md, section 9") {
  const std::string mega = "[n@tp (q: 1 | k: 1 | v: 1) d, ...]";
  CHECK(One(mega, {24, 8}, "where n = 4, d = 2").shape(1) == Shape{12, 8});
  CHECK(One(mega, {24}, "where n = 4, d = 2").rank(1) == range(12, 24));
  CHECK(One("[..., (q: n@tp d | k: n@tp d | v: n@tp d)]", {24}, "where n = 4, d = 2").rank(1) ==
        Elements{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23});
  // Fewer groups than ranks: cut plainly across them, or k and v copied.
  const std::string sizes = "where g = 2, r = 4, d = 1";
  CHECK(One("[(g (q: r | k: 1 | v: 1) d)@tp, h]", {12, 1}, sizes, {{"tp", 4}}).rank(1) == Elements{3, 4, 5});
  const std::string text =
      "ucl 1\nwhere g = 2, r = 4, d = 1\nlayout l over tp = tg * tr { where tg = min(g, tp)\n"
      "\"qkv\" [g@tg (q: r@tr | k: 1 | v: 1) d, h]  \"proj\" [h, g@tg r@tr d] }\n";
  Target t;
  t.put_numbered("qkv", {12, 1});
  t.put_numbered("proj", {1, 8});
  REQUIRE(t.cut(text, on_mesh({{"tp", 4}})) == "");
  CHECK(t.elements(tp(1), "qkv") == Elements{2, 3, 4, 5});
  CHECK(t.elements(tp(2), "qkv") == Elements{6, 7, 10, 11});
  CHECK(t.elements(tp(1), "proj") == Elements{2, 3});
  CHECK(t.trusted.back() == "the order (q: r@tr | k: 1 | v: 1) in \"qkv\", which no shape tells");
}

TEST_CASE("distribute: experts get the numbers of their ranks") {
  Target t;
  for (int e = 0; e < 8; ++e) t.put_numbered(cat("layers.0.mlp.experts.", e, ".w"), {2, 2});
  t.put_numbered("layers.0.mlp.router", {8, 2});
  const std::string text =
      "ucl 1\nlayout l over ep {\nindex e @ep local\n\"layers.{i}.mlp.experts.{e}.**\" [...]\n"
      "\"**\" replicate\n}\n";
  REQUIRE(t.cut(text, on_mesh({{"ep", 4}})) == "");
  using Names = std::vector<std::string>;
  CHECK(t.names({{"ep", 1}}) ==
        Names{"layers.0.mlp.experts.0.w", "layers.0.mlp.experts.1.w", "layers.0.mlp.router"});
  CHECK(t.shard({{"ep", 1}}, "layers.0.mlp.experts.0.w").logical_name == "layers.0.mlp.experts.2.w");
  CHECK(t.shard({{"ep", 3}}, "layers.0.mlp.experts.1.w").tensor == 7);
  CHECK(t.shard({{"ep", 0}}, "layers.0.mlp.router").is_primary);
  CHECK_FALSE(t.shard({{"ep", 3}}, "layers.0.mlp.router").is_primary);
  // Coordinates that no mesh axis parts: the format places experts itself, under their global numbers.
  REQUIRE(t.cut(text, on_mesh({{"ep", 4}}), std::vector<Coordinate>{{}}) == "");
  CHECK(t.names({}).size() == 9);
  CHECK(t.find({}, "layers.0.mlp.experts.5.w") != nullptr);
}

std::string layers(const std::string& index) {
  return cat("ucl 1\nlayout l over pp, vp {\nindex i ", index,
             "\n\"emb\" replicate on pp first on vp first\n",
             "\"h.{i+3}.w\" [...]\n\"norm\" replicate on pp last, 0 on vp last\n}\n");
}

TEST_CASE("distribute: layers over stages, even, uneven, virtual, local and global") {
  using Names = std::vector<std::string>;
  const auto put = [](Target& t, int count) {
    t.put_numbered("emb", {2});
    for (int i = 0; i < count; ++i) t.put_numbered(cat("h.", i + 3, ".w"), {2});
    t.put_numbered("norm", {2});
  };
  Target even;
  put(even, 4);
  REQUIRE(even.cut(layers("@pp local"), on_mesh({{"pp", 2}})) == "");
  CHECK(even.names(pp(0)) == Names{"emb", "h.3.w", "h.4.w", "norm"});
  CHECK(even.names(pp(1)) == Names{"h.3.w", "h.4.w", "norm"});
  CHECK(even.shard(pp(1), "h.3.w").logical_name == "h.5.w");
  REQUIRE(even.cut(layers("@pp"), on_mesh({{"pp", 2}})) == "");
  CHECK(even.names(pp(1)) == Names{"h.5.w", "h.6.w", "norm"});
  REQUIRE(even.cut(layers("@pp[3,1]"), on_mesh({{"pp", 2}})) == "");
  CHECK(even.names(pp(1)) == Names{"h.6.w", "norm"});
  REQUIRE(even.cut(layers("@pp[chunk]"), on_mesh({{"pp", 3}})) == "");
  CHECK(even.names(pp(1)) == Names{"h.5.w", "h.6.w"});
  CHECK(even.names(pp(2)) == Names{"norm"});

  Target stages;
  put(stages, 8);
  REQUIRE(stages.cut(layers("@(vp, pp[3,1]) local"), on_mesh({{"pp", 2}, {"vp", 2}})) == "");
  CHECK(stages.names({{"pp", 0}, {"vp", 0}}) == Names{"emb", "h.3.w", "h.4.w", "h.5.w"});
  CHECK(stages.shard({{"pp", 0}, {"vp", 1}}, "h.3.w").logical_name == "h.7.w");
  CHECK(stages.shard({{"pp", 1}, {"vp", 1}}, "h.3.w").logical_name == "h.10.w");
  CHECK(stages.find({{"pp", 0}, {"vp", 1}}, "norm") != nullptr);
  CHECK(stages.find({{"pp", 0}, {"vp", 0}}, "norm") == nullptr);
}

TEST_CASE("distribute: bodies, values, states, dtypes, numbers") {
  Target t;
  const Array a = made_up("a", {4});
  t.put("bias", a);
  t.put("bias", a, "exp_avg");
  t.put("bias", a, "exp_avg_sq");
  t.put("bias", made_up("step", {}), "step");
  t.put("norm", a);
  t.put("norm", a, "exp_avg");
  t.put("mean", a);
  t.put("owned", a);
  t.put("bytes", a, "param", DType::kU8);
  t.put("dropped", a);
  t.put("odd", a);
  t.put("odd", made_up("small", {2}), "exp_avg");
  t.put("late", a);
  t.put("late", made_up("step", {}), "step");
  const std::string rules =
      "ucl 1\nlayout l over tp {\n\"bias\" [...] * 1/tp dtype bf16\n\"norm\" [o@tp] + 1\n"
      "\"mean\" partial mean over tp\n\"owned\" unique\n\"bytes\" opaque\n\"dropped\" drop\n"
      "\"odd\" [r@tp] states exp_avg\n\"odd\" replicate\n\"late\" replicate on tp last states fp32\n"
      "optional \"gone\" replicate\n}\n";
  REQUIRE(t.cut(rules, on_mesh({{"tp", 2}})) == "");
  CHECK(t.shard(tp(1), "bias").factor == 0.5);
  CHECK(t.shard(tp(1), "bias").dtype == DType::kBF16);
  CHECK(t.shard(tp(1), "bias", "exp_avg").factor == 2);
  CHECK_FALSE(t.shard(tp(1), "bias", "exp_avg").dtype);
  CHECK(t.shard(tp(1), "bias", "exp_avg_sq").factor == 4);
  CHECK(t.shard(tp(1), "bias", "step").factor == 1);
  CHECK(t.shard(tp(1), "bias", "step").is_number);
  CHECK(t.shard(tp(1), "bias", "step").shape == Shape{});
  CHECK(t.shard(tp(1), "norm").summand == 1);
  CHECK(t.shard(tp(1), "norm", "exp_avg").summand == 0);
  CHECK(t.elements(tp(1), "mean") == range(0, 4));
  CHECK(t.find(tp(0), "owned") != nullptr);
  CHECK(t.find(tp(1), "owned") == nullptr);
  CHECK(t.elements(t.shard(tp(1), "bytes", "param")) == range(0, 4));
  CHECK(t.find(tp(0), "dropped") == nullptr);
  CHECK(t.elements(t.shard(tp(1), "odd", "exp_avg")) == Elements{1});
  CHECK(t.elements(tp(1), "odd") == range(0, 4));
  CHECK(t.find(tp(0), "late", "step") == nullptr);
  CHECK(t.find(tp(1), "late", "step") != nullptr);
}

TEST_CASE("distribute: ties and aliases") {
  const std::string text =
      "ucl 1\ngiven tie from tie_weights = 0\nlayout l over pp, tp {\n\"emb\" [v pad(2*tp) @tp, h] on pp "
      "first\n"
      "\"head\" [v@tp, h] on pp last when not tie\n\"head\" tied to \"emb\" on pp last when tie, pp > 1\n"
      "optional \"also\" replicate\n}\n";
  Target t;
  t.put_numbered("emb", {3, 1});
  t.put_numbered("emb", {3, 1}, "exp_avg");
  Settings s = on_mesh({{"pp", 2}, {"tp", 2}});
  s.arguments["tie_weights"] = 1;
  REQUIRE(t.cut(text, s) == "");
  const Coordinate head = {{"pp", 1}, {"tp", 1}};
  CHECK(t.elements(head, "head") == Elements{2, -1});
  CHECK(t.shard(head, "head").tensor == 0);
  CHECK(t.shard(head, "head", "exp_avg").tensor == 1);
  CHECK_FALSE(t.shard(head, "head").is_primary);
  CHECK_FALSE(t.shard(head, "head").tied_to);
  CHECK(t.find({{"pp", 0}, {"tp", 1}}, "head") == nullptr);
  s.mesh["pp"] = 1;
  REQUIRE(t.cut(text, s) == "");
  CHECK(t.names({{"pp", 0}, {"tp", 0}}) == std::vector<std::string>{"emb", "emb"});

  // The source may have the name; on one rank it is the same shard.
  t.put_alias("head", 0);
  t.put_alias("also", 0);
  const std::string one =
      "ucl 1\nlayout l over tp {\n\"emb\" [v pad(2*tp) @tp, h]\n\"head\" tied to \"emb\"\n\"also\" "
      "replicate\n}\n";
  REQUIRE(t.cut(one, on_mesh({{"tp", 2}})) == "");
  CHECK(t.names(tp(0)) == std::vector<std::string>{"emb", "emb", "head", "also", "head"});
  CHECK(t.shard(tp(0), "head").tied_to == 0);
  CHECK(t.shard(tp(0), "head", "exp_avg").tied_to == 1);
  CHECK(t.elements(tp(0), "also") == range(0, 3));
  CHECK_FALSE(t.shard(tp(0), "also").tied_to);
}

TEST_CASE("distribute: the order of the rules, index by index") {
  Target t;
  for (const char* name :
       {"z.norm", "h.1.b.bias", "h.0.b.weight", "h.1.a", "h.0.x.1.v", "h.0.x.1.u", "h.0.x.0.v", "h.0.x.0.u",
        "h.0.b.bias", "h.1.b.weight", "h.0.a", "emb", "extra.b", "extra.a"})
    t.put_numbered(name, {2});
  t.put_numbered("emb", {2}, "exp_avg");
  const std::string text =
      "ucl 1\nlayout l {\n\"emb\" replicate\n\"h.{i}.a\" replicate\noptional \"h.{i}.x.{e}.u\" replicate\n"
      "optional \"h.{i}.x.{e}.v\" replicate\n\"z.norm\" replicate\n\"h.{i}.b.{p:weight|bias}\" replicate\n"
      "\"**\" replicate\n}\n";
  REQUIRE(t.cut(text, {}) == "");
  std::map<uint32_t, std::string> sorted;
  for (const Shard& s : t.shards.ranks[0].shards) sorted[s.order] = s.name;
  std::vector<std::string> names;
  for (const auto& [order, name] : sorted) names.push_back(name);
  CHECK(names == std::vector<std::string>{"emb", "h.0.a", "h.0.x.0.u", "h.0.x.0.v", "h.0.x.1.u", "h.0.x.1.v",
                                          "h.0.b.weight", "h.0.b.bias", "h.1.a", "h.1.b.weight", "h.1.b.bias",
                                          "z.norm", "extra.b", "extra.a"});
  CHECK(t.shard({}, "emb", "exp_avg").order == 0);
}

TEST_CASE("distribute: tensors without elements, scalars, copies that are cut unlike") {
  Target t;
  t.put_numbered("none", {0, 2});
  t.put_numbered("scalar", {});
  // k lies on both tp ranks, and dp cuts it at another place on each.
  t.put_numbered("mixed", {10, 1});
  const std::string text =
      "ucl 1\nlayout l over dp, tp {\n\"none\" [o@tp, i]\n\"scalar\" []\n"
      "\"mixed\" [(q: x@tp[1,4] | k: 5)@dp[chunk], h]\n}\n";
  REQUIRE(t.cut(text, on_mesh({{"dp", 2}, {"tp", 2}})) == "");
  CHECK(t.shard({{"dp", 1}, {"tp", 1}}, "none").shape == Shape{0, 2});
  CHECK(t.shard({{"dp", 0}, {"tp", 0}}, "none").is_primary);
  CHECK(t.elements({{"dp", 1}, {"tp", 1}}, "scalar") == Elements{0});
  CHECK(t.elements({{"dp", 0}, {"tp", 0}}, "mixed") == Elements{0, 5, 6});
  CHECK(t.elements({{"dp", 1}, {"tp", 0}}, "mixed") == Elements{7, 8, 9});
  CHECK(t.elements({{"dp", 0}, {"tp", 1}}, "mixed") == Elements{1, 2, 3, 4, 5});
  CHECK(t.elements({{"dp", 1}, {"tp", 1}}, "mixed") == Elements{6, 7, 8, 9});
}

TEST_CASE("distribute: a mesh of no or too many ranks") {
  CHECK(grid_of({}).size() == 1);
  CHECK(grid_of({{"tp", 2}, {"pp", 2}})[1] == Coordinate{{"pp", 0}, {"tp", 1}});
  CHECK_THROWS_AS(grid_of({{"tp", 0}}), Error);
  CHECK_THROWS_AS(grid_of({{"tp", int64_t{1} << 40}, {"pp", int64_t{1} << 40}}), Error);
}

std::string said(const std::string& rules, const std::function<void(Target&)>& fill,
                 Coordinate mesh = {{"tp", 2}}, std::optional<std::vector<Coordinate>> ranks = std::nullopt) {
  std::string axes;
  for (const auto& [axis, size] : mesh) axes += cat(axes.empty() ? "" : ", ", axis);
  Target t;
  fill(t);
  return t.cut(cat("ucl 1\nlayout l over ", axes, " {\n", rules, "\n}\n"), on_mesh(mesh), std::move(ranks));
}

TEST_CASE("distribute: errors") {
  const auto odd = [](Target& t) { t.put_numbered("w", {6, 3}); };
  CHECK(said("\"w\" [o@tp, i]", odd, {{"tp", 4}}) ==
        R"(spec.ucl:3:6: error: `o` is 6, which cannot be cut evenly over the 4 ranks of `tp` [ucl.uneven]
    3 | "w" [o@tp, i]
      |      ^^^^
  hint: a tensor of shape [6, 3], with o = 6, i = 3; `tp[chunk]` or `tp[…]` cut unevenly, `pad(N)` fills up
1 error
)");
  CHECK(said("\"w\" [o@tp[3,3], i]", odd, {{"tp", 4}}) ==
        R"(spec.ucl:3:8: error: expected 4 shares, one for each rank of `tp`, found 2 [ucl.share_count]
    3 | "w" [o@tp[3,3], i]
      |        ^^^^^^^
1 error
)");
  CHECK(said("\"w\" [o@tp[3,2], i]", odd) ==
        R"(spec.ucl:3:6: error: the ranks' shares of `o` over `tp` add up to 5, but `o` is 6 [ucl.shares]
    3 | "w" [o@tp[3,2], i]
      |      ^^^^^^^^^
  hint: a tensor of shape [6, 3]
1 error
)");
  CHECK(said("\"w\" [o, i, k]", odd) ==
        R"(spec.ucl:3:5: error: expected 3 dims, found a tensor of shape [6, 3] [ucl.rank]
    3 | "w" [o, i, k]
      |     ^^^^^^^^^
1 error
)");
  CHECK(said("where d = 4\n\"w\" [g d, i]", odd) ==
        R"(spec.ucl:4:6: error: the tensor has 6 here: `g` would have to be 3/2 [ucl.size_conflict]
    4 | "w" [g d, i]
      |      ^^^
  hint: a tensor of shape [6, 3]
1 error
)");
  CHECK(
      said("\"w\" [(a: x@tp | b: y), i]", odd) ==
      R"(spec.ucl:3:6: error: the size of `x`, `y` stays unknown: a tensor of shape [6, 3] [ucl.size_unknown]
    3 | "w" [(a: x@tp | b: y), i]
      |      ^^^^^^^^^^^^^^^^
  hint: say it with `where NAME = N`, with a `given` and --set NAME=N, or with shares as `@tp[6,6]`
1 error
)");
  CHECK(
      said("where x = 4, y = 1\n\"w\" [(a: x@tp | b: y), i]", odd) ==
      R"(spec.ucl:4:6: error: the tensor has 6 here ([6, 3]), but the rule gives 5 with x = 4, y = 1, i = 3 [ucl.size_conflict]
    4 | "w" [(a: x@tp | b: y), i]
      |      ^^^^^^^^^^^^^^^^
  hint: a tensor of shape [6, 3]
1 error
)");
  CHECK(
      said("\"w\" [o@tp, i]", odd, {{"tp", 2}}, std::vector<Coordinate>{{}}) ==
      R"(spec.ucl:3:8: error: the target's files do not lie over `tp`: this format makes that cut itself [ucl.axis_undone]
    3 | "w" [o@tp, i]
      |        ^^
1 error
)");
  CHECK(said("\"w\" replicate on tp 7", odd) ==
        R"(spec.ucl:3:1: error: `w`: it lies on no rank of this mesh [ucl.uncovered]
    3 | "w" replicate on tp 7
      | ^^^
1 error
)");
  CHECK(said("\"w\" tied to \"x\"", odd) ==
        R"(spec.ucl:3:5: error: `w` is tied to "x", of which the checkpoint has no fp32 [ucl.tied_to_nothing]
    3 | "w" tied to "x"
      |     ^^^^^^^^^^^
1 error
)");
  const auto two = [](Target& t) {
    t.put_numbered("a", {2});
    t.put_numbered("b", {2});
    t.put_numbered("b", {3}, "exp_avg");
    t.put("c", numbered({2}), "param", DType::kI32);
    t.put_numbered("d", {2});
    t.put_numbered("e", {2});
  };
  CHECK(said("\"a\" tied to \"b\"\n\"b\" replicate\n\"c\" replicate * 1/tp\n\"gone\" replicate", two) ==
        R"(spec.ucl:2:8: error: no rule takes 2 names: `d`, `e` [ucl.no_rule]
    2 | layout l over tp {
      |        ^
  hint: a fallback is written, never assumed: `"**" replicate`
spec.ucl:3:5: error: `a` is a tensor of its own, which its rule ties to `b` [ucl.tied_apart]
    3 | "a" tied to "b"
      |     ^^^^^^^^^^^
  hint: a rule with a shape writes it as it is
spec.ucl:4:1: error: `b`: its exp_avg has the shape [3], its fp32 [2] [ucl.state_shape]
    4 | "b" replicate
      | ^^^
  hint: a state of another shape takes a rule of its own, with `states`
spec.ucl:5:1: error: `c`: its param is i32, of which there is no product and no sum [ucl.dtype]
    5 | "c" replicate * 1/tp
      | ^^^
spec.ucl:6:1: error: the rule "gone" takes nothing of the checkpoint [ucl.unused_rule]
    6 | "gone" replicate
      | ^^^^^^
  hint: write `optional` before it if that may be
5 errors
)");
  const auto stages = [](Target& t) {
    for (int i = 0; i < 5; ++i) t.put_numbered(cat("h.", i, ".w"), {2});
    t.put_numbered("h.1.v", {2});
  };
  CHECK(
      said("index i @tp\n\"h.{i}.w\" replicate\n\"h.{i}.v\" replicate", stages) ==
      R"(spec.ucl:3:10: error: the 5 numbers of `i` cannot be shared out evenly over the 2 ranks of `tp` [ucl.uneven]
    3 | index i @tp
      |          ^^
  hint: `tp[chunk]`, or the share of each rank as `tp[7,8,8,7]`, says how
spec.ucl:5:1: error: nothing of the checkpoint fits "h.{i}.v" at i = 0, which other rules have [ucl.missing_number]
    5 | "h.{i}.v" replicate
      | ^^^^^^^^^
  hint: write `optional` before the rule if that may be
2 errors
)");
  CHECK(said("index i @tp[3,3]\n\"h.{i}.{x:*}\" replicate", stages) ==
        R"(spec.ucl:3:10: error: the shares add up to 6, but there are 5 numbers of `i` [ucl.shares]
    3 | index i @tp[3,3]
      |          ^^^^^^^
1 error
)");
  CHECK(said("index i @tp[3,1,1]\n\"h.{i}.{x:*}\" replicate", stages) ==
        R"(spec.ucl:3:10: error: expected 2 shares, one for each rank of `tp`, found 3 [ucl.share_count]
    3 | index i @tp[3,1,1]
      |          ^^^^^^^^^
1 error
)");
  CHECK(said("index i @tp[chunk] local\n\"h.{i}.w\" replicate\n\"**\" replicate", stages) ==
        R"(spec.ucl:5:1: error: a wildcard takes the local number in `h.1.v` [ucl.wildcard_local]
    5 | "**" replicate
      | ^^^^
spec.ucl:4:1: note: names with that number begin so
    4 | "h.{i}.w" replicate
      | ^^^^^^^^^
  hint: write the number as this rule does, or `drop` the name
1 error
)");
}

TEST_CASE("distribute: random shapes hold what the reference holds, and are joined to the same") {
  int tried = 0, padded = 0;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    const Coordinate mesh = {{"tp", std::uniform_int_distribution<int64_t>(1, 4)(random)},
                             {"dp", std::uniform_int_distribution<int64_t>(1, 3)(random)}};
    Sampler sampler(seed, mesh);
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
    const Coordinate alone = {{"tp", 1}, {"dp", 1}};
    const Held all_rows = Sampler::held(rows, {{"tp", 0}, {"dp", 0}}, alone),
               all_columns = Sampler::held(columns, {{"tp", 0}, {"dp", 0}}, alone);
    if (all_rows.elements.size() * all_columns.elements.size() > 3000) continue;
    ++tried;
    Target target;
    target.put_numbered("w", {all_rows.whole, all_columns.whole});
    REQUIRE(target.cut(text, on_mesh(mesh)) == "");
    World back;
    for (const Coordinate& at : grid_of(mesh)) {
      const Held r = Sampler::held(rows, at, mesh), c = Sampler::held(columns, at, mesh);
      Elements expected;
      for (const int64_t a : r.elements)
        for (const int64_t b : c.elements) expected.push_back(a < 0 || b < 0 ? -1 : a * c.whole + b);
      if (expected.empty()) {
        CHECK(target.find(at, "w") == nullptr);
        back.catalog.ranks.push_back({at, {}});
        continue;
      }
      const Shard& s = target.shard(at, "w");
      CHECK(s.shape ==
            Shape{static_cast<int64_t>(r.elements.size()), static_cast<int64_t>(c.elements.size())});
      CHECK(target.elements(s) == expected);
      padded += s.is_padded;
      back.put(at, "w", target.array(s));
    }
    CHECK(back.join(text, "l", on_mesh(mesh)) == "");
    CHECK(back.holds("w", numbered({all_rows.whole, all_columns.whole})));
  }
  CHECK(tried > 1500);
  CHECK(padded > 500);
}

TEST_CASE("distribute: layers of each stage as they are asked for, in every virtual chunk alike") {
  const std::string text = "ucl 1\nlayout l over pp, vp { index i @(vp, pp) local  \"l.{i}\" [h] }\n";
  const auto cut = [&](Coordinate mesh, std::vector<int64_t> stages, int64_t layers, Target& target) {
    for (int64_t i = 0; i < layers; ++i) target.put_numbered(cat("l.", i), {2});
    Settings settings = on_mesh(std::move(mesh));
    settings.shares["pp"] = std::move(stages);
    return target.cut(text, settings);
  };
  const auto held = [](const Target& target, const Coordinate& at) {
    std::vector<std::string> out;
    for (const RankShards& rank : target.shards.ranks)
      if (rank.at == at)
        for (const Shard& s : rank.shards) out.push_back(s.logical_name);
    return out;
  };
  using Names = std::vector<std::string>;
  Target uneven;
  REQUIRE(cut({{"pp", 2}, {"vp", 1}}, {1, 3}, 4, uneven) == "");
  CHECK(held(uneven, {{"pp", 0}, {"vp", 0}}) == Names{"l.0"});
  CHECK(held(uneven, {{"pp", 1}, {"vp", 0}}) == Names{"l.1", "l.2", "l.3"});
  CHECK(uneven.names({{"pp", 1}, {"vp", 0}}) == Names{"l.0", "l.1", "l.2"});
  Target chunks;  // 2 and 4 layers, in two chunks each
  REQUIRE(cut({{"pp", 2}, {"vp", 2}}, {2, 4}, 6, chunks) == "");
  CHECK(held(chunks, {{"pp", 0}, {"vp", 1}}) == Names{"l.3"});
  CHECK(held(chunks, {{"pp", 1}, {"vp", 1}}) == Names{"l.4", "l.5"});
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{1, 2}, {4}, {-1, 5}, {0, 0}}) {
    Target target;
    CHECK(cut({{"pp", 2}, {"vp", 1}}, wrong, 4, target).find("[ucl.shares]") != std::string::npos);
  }
}

}  // namespace
}  // namespace uckpt::layout
