// Maps applied to whole tensors: every map of the design's hard cases against arithmetic written out by hand,
// random ones against a reference that names each element, and every message whole.
#include "lib/layout/renaming.h"

#include "lib/base/text.h"
#include "lib/plan/box.h"
#include "tests/unit/layout/renaming_testing.h"

namespace uckpt::layout {
namespace {

using testing::Array;
using testing::element;
using testing::filled;
using testing::Index;
using testing::made_up;
using testing::Values;
using testing::Whole;
using testing::with;

using Names = std::vector<std::string>;

constexpr const char* kGpt2 = R"(ucl 1
given n from n_head | num_attention_heads
map mega <-> hf_gpt2 {
    "layers.{i}.qkv.{p:weight|bias}" [n (q: 1 | k: 1 | v: 1) d, ...] <-> "h.{i}.attn.c_attn.{p}" [..., (q: n d | k: n d | v: n d)]
}
)";

TEST_CASE("rename: GPT-2's interleaved rows and its transposed, plainly fused columns") {
  constexpr int64_t n = 4, d = 2, h = 8;
  const Array weight = made_up("w", {3 * n * d, h}), bias = made_up("b", {3 * n * d});
  const auto row = [&](int64_t column) {  // of the interleaved weight, for a column of c_attn
    const int64_t block = column / (n * d), head = column % (n * d) / d, k = column % d;
    return (head * 3 + block) * d + k;
  };
  Whole world;
  world.add("layers.0.qkv.weight", weight);
  world.add("layers.0.qkv.bias", bias);
  CHECK(world.rename(kGpt2, "mega", "hf_gpt2", with({{"n", n}})) == "");
  CHECK(world.names() == Names{"fp32/h.0.attn.c_attn.weight", "fp32/h.0.attn.c_attn.bias"});
  CHECK(
      world.trusted ==
      Names{"n = 4, from --set n",
            "the order (q: 1 | k: 1 | v: 1) in the map's \"layers.{i}.qkv.{p:weight|bias}\", which no shape "
            "tells",
            "the order (q: n d | k: n d | v: n d) in the map's \"h.{i}.attn.c_attn.{p}\", which no shape "
            "tells"});
  CHECK(world.holds("h.0.attn.c_attn.weight", filled({h, 3 * n * d}, [&](const Index& i) {
                      return element(weight, {row(i[1]), i[0]});
                    })));
  CHECK(world.holds("h.0.attn.c_attn.bias",
                    filled({3 * n * d}, [&](const Index& i) { return element(bias, {row(i[0])}); })));
  CHECK(world.rename(kGpt2, "hf_gpt2", "mega", with({{"n", n}})) == "");
  CHECK(world.holds("layers.0.qkv.weight", weight));
  CHECK(world.holds("layers.0.qkv.bias", bias));
}

TEST_CASE("rename: fragments of ranks are joined first, and their pieces go on") {
  constexpr int64_t n = 4, d = 2, h = 8, tp = 2;
  const std::string text = R"(ucl 1
given n from n_head | num_attention_heads
layout mega over tp {
    "layers.{i}.qkv" [n@tp (q: 1 | k: 1 | v: 1) d, ...]
    "layers.{i}.proj" [h, f@tp]
}
map mega <-> hf_gpt2 {
    "layers.{i}.qkv" [n (q: 1 | k: 1 | v: 1) d, ...] <-> "h.{i}.c_attn" [..., (q: n d | k: n d | v: n d)]
    "layers.{i}.proj" [h, f] <-> "h.{i}.c_proj" [f, h]
}
)";
  const Array whole = made_up("w", {h, 3 * n * d}), proj = made_up("p", {4, 6});
  // Rank 1 holds the columns 4 5 12 13 20 21 6 7 14 15 22 23 of `c_attn`, transposed.
  const std::vector<std::vector<int64_t>> columns = {{0, 1, 8, 9, 16, 17, 2, 3, 10, 11, 18, 19},
                                                     {4, 5, 12, 13, 20, 21, 6, 7, 14, 15, 22, 23}};
  Whole world;
  for (int64_t rank = 0; rank < tp; ++rank) {
    const Coordinate at = {{"tp", rank}};
    world.put(at, "layers.0.qkv", filled({12, h}, [&](const Index& i) {
                return element(whole, {i[1], columns[static_cast<size_t>(rank)][static_cast<size_t>(i[0])]});
              }));
    world.put(at, "layers.0.proj", testing::columns_of(proj, rank * 3, rank * 3 + 3));
  }
  Settings settings = with({{"n", n}});
  settings.mesh["tp"] = tp;
  CHECK(world.join(text, "mega", settings) == "");
  CHECK(world.rename(text, "mega", "hf_gpt2", settings) == "");
  CHECK(world.holds("h.0.c_attn", whole));
  CHECK(world.holds("h.0.c_proj", filled({6, 4}, [&](const Index& i) {
                      return element(proj, {i[1], i[0]});
                    })));
  // One box a rank, not one a row.
  CHECK(world.tensor("h.0.c_proj").pieces.count == tp);
}

constexpr const char* kOurs = R"(ucl 1
map ours <-> theirs {
    where two = 2
    optional "decoder.final_layernorm.weight" <-> "model.norm.weight" + 1
    optional "decoder.layers.mlp.experts.experts.linear_fc1.weight" [i, e, (gate: f | up: f), h]
        <-> gate: "model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight" [f, h],
            up: "model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight" [f, h]
    optional "layers.{i}.attention.wq.weight" [g r half two, h] <-> "model.layers.{i}.self_attn.q_proj.weight" [g r two half, h]
    optional "layers.{i}.attention.wk.weight" [g half two, h] <-> "model.layers.{i}.self_attn.k_proj.weight" [g two half, h]
}
)";

TEST_CASE("rename: a norm that is one less") {
  Whole world;
  const Array norm = made_up("n", {5});
  world.add("decoder.final_layernorm.weight", norm);
  world.add("decoder.final_layernorm.weight", norm, "exp_avg");
  CHECK(world.rename(kOurs, "ours", "theirs") == "");
  CHECK(world.holds("model.norm.weight", norm));
  CHECK(world.tensor("model.norm.weight").summand == -1);
  CHECK(world.tensor("model.norm.weight", "exp_avg").summand == 0);
  CHECK(world.rename(kOurs, "theirs", "ours") == "");
  CHECK(world.tensor("decoder.final_layernorm.weight").summand == 0);
}

TEST_CASE("rename: experts and layers, stacked and apart") {
  constexpr int64_t layers = 2, experts = 3, f = 4, h = 5;
  const std::string name = "decoder.layers.mlp.experts.experts.linear_fc1.weight";
  const Array stacked = made_up("e", {layers, experts, 2 * f, h});
  Whole world;
  world.add(name, stacked);
  world.add(name, Array{{}, {7}}, "step");
  CHECK(world.rename(kOurs, "ours", "theirs") == "");
  CHECK(world.catalog.tensors.size() == 2 * 2 * layers * experts);
  for (int64_t i = 0; i < layers; ++i) {
    for (int64_t e = 0; e < experts; ++e) {
      const std::string expert = cat("model.layers.", i, ".block_sparse_moe.experts.", e);
      for (const bool up : {false, true}) {
        const std::string part = cat(expert, up ? ".w3.weight" : ".w1.weight");
        CHECK(world.holds(part, filled({f, h}, [&](const Index& at) {
                            return element(stacked, {i, e, at[0] + (up ? f : 0), at[1]});
                          })));
        CHECK(world.holds(part, Array{{}, {7}}, "step"));
      }
    }
  }
  CHECK(world.rename(kOurs, "theirs", "ours") == "");
  CHECK(world.names() == Names{"fp32/" + name, "step/" + name});
  CHECK(world.holds(name, stacked));
  CHECK(world.holds(name, Array{{}, {7}}, "step"));
}

TEST_CASE("rename: the rotary order of queries and of keys, which have their own heads") {
  constexpr int64_t g = 2, r = 3, half = 4, h = 3;
  const Array wq = made_up("q", {g * r * half * 2, h}), wk = made_up("k", {g * half * 2, h});
  Whole world;
  world.add("layers.0.attention.wq.weight", wq);
  world.add("layers.0.attention.wk.weight", wk);
  const std::string text = std::string(kOurs).replace(0, 5, "ucl 1\ngiven g, r");
  CHECK(world.rename(text, "ours", "theirs", with({{"g", g}, {"r", r}})) == "");
  const auto from = [&](const Array& a) {
    return filled(a.shape, [&](const Index& i) {
      const int64_t head = i[0] / (2 * half), two = i[0] % (2 * half) / half, k = i[0] % half;
      return element(a, {head * 2 * half + k * 2 + two, i[1]});
    });
  };
  CHECK(world.holds("model.layers.0.self_attn.q_proj.weight", from(wq)));
  CHECK(world.holds("model.layers.0.self_attn.k_proj.weight", from(wk)));
  CHECK(world.rename(text, "theirs", "ours", with({{"g", g}, {"r", r}})) == "");
  CHECK(world.holds("layers.0.attention.wq.weight", wq));
  CHECK(world.holds("layers.0.attention.wk.weight", wk));
}

constexpr const char* kQkv = R"(ucl 1
given g, r
map a <-> b {
    "a.{i}.qkv" [g (q: r | k: 1 | v: 1) d, h]
        <-> q: "b.{i}.q" [g r d, h], k: "b.{i}.k" [g d, h], v: "b.{i}.v" [h, g d]
}
)";

TEST_CASE("rename: one fused tensor and three, one of them transposed, from pieces of any cut") {
  constexpr int64_t g = 3, r = 2, d = 2, h = 4, rows = g * (r + 2) * d;
  const Array qkv = made_up("qkv", {rows, h});
  for (const std::vector<int64_t>& cuts :
       {std::vector<int64_t>{}, {1}, {7, 19, 33, 50}, {rows * h / 2}, {16, 32}}) {
    Whole world;
    world.add_sharded("a.0.qkv", qkv, cuts);
    CHECK(world.rename(kQkv, "a", "b", with({{"g", g}, {"r", r}})) == "");
    const auto row = [&](int64_t group, int64_t block, int64_t k) {
      return (group * (r + 2) + block) * d + k;
    };
    CHECK(world.holds("b.0.q", filled({g * r * d, h}, [&](const Index& i) {
                        return element(qkv, {row(i[0] / (r * d), i[0] / d % r, i[0] % d), i[1]});
                      })));
    CHECK(world.holds("b.0.k", filled({g * d, h}, [&](const Index& i) {
                        return element(qkv, {row(i[0] / d, r, i[0] % d), i[1]});
                      })));
    CHECK(world.holds("b.0.v", filled({h, g * d}, [&](const Index& i) {
                        return element(qkv, {row(i[1] / d, r + 1, i[1] % d), i[0]});
                      })));
    CHECK(world.rename(kQkv, "b", "a", with({{"g", g}, {"r", r}})) == "");
    CHECK(world.holds("a.0.qkv", qkv));
  }
}

TEST_CASE("rename: states, copies, means and refusals go the way of their parameter") {
  constexpr int64_t g = 2, r = 1, d = 1, h = 2;
  const Array qkv = made_up("qkv", {g * 3 * d, h}), other = made_up("other", {g * 3 * d, h});
  Whole world;
  world.add("a.0.qkv", qkv);
  world.add("a.0.qkv", other, "exp_avg");
  world.add("a.0.qkv", Array{{}, {4}}, "step");
  const PieceRange copy = world.add("spare", other).pieces;
  world.catalog.tensors.pop_back();
  world.catalog.tensors[0].copies.push_back({copy, DType::kF32, false, "replica"});
  world.catalog.tensors[1].averaged_with.push_back(copy);
  CHECK(world.rename(kQkv, "a", "b", with({{"g", g}, {"r", r}})) == "");
  CHECK(world.names() == Names{"fp32/b.0.q", "fp32/b.0.k", "fp32/b.0.v", "exp_avg/b.0.q", "exp_avg/b.0.k",
                               "exp_avg/b.0.v", "step/b.0.q", "step/b.0.k", "step/b.0.v"});
  const auto keys = [&](const Array& a) {
    return filled({g, h}, [&](const Index& i) { return element(a, {i[0] * 3 + 1, i[1]}); });
  };
  CHECK(world.holds("b.0.k", keys(qkv)));
  CHECK(world.holds("b.0.k", keys(other), "exp_avg"));
  const Tensor& k = world.tensor("b.0.k");
  REQUIRE(k.copies.size() == 1);
  CHECK(k.copies[0].what == "replica");
  CHECK(world.values(k.copies[0].pieces, g * h) == keys(other).values);
  REQUIRE(world.tensor("b.0.k", "exp_avg").averaged_with.size() == 1);
  CHECK(world.values(world.tensor("b.0.k", "exp_avg").averaged_with[0], g * h) == keys(other).values);
  for (Tensor& t : world.catalog.tensors)
    if (t.path() == "fp32/b.0.v") t.refusal = "it is odd";
  CHECK(world.rename(kQkv, "b", "a", with({{"g", g}, {"r", r}})) == "");
  CHECK(world.tensor("a.0.qkv").refusal == "it is odd");
  CHECK(world.holds("a.0.qkv", other, "exp_avg"));
  CHECK(world.holds("a.0.qkv", Array{{}, {4}}, "step"));
}

TEST_CASE("rename: factors") {
  const std::string text = "ucl 1\nmap a <-> b { \"x\" * 4 <-> \"y\" * 2 }\n";
  Whole world;
  for (const char* state : {"fp32", "exp_avg", "exp_avg_sq"}) world.add("x", made_up("x", {3}), state);
  world.catalog.tensors[0].factor = 10;
  world.catalog.tensors[0].summand = 3;
  CHECK(world.rename(text, "a", "b") == "");
  CHECK(world.tensor("y").factor == 20);
  CHECK(world.tensor("y").summand == 6);
  CHECK(world.tensor("y", "exp_avg").factor == 0.5);
  CHECK(world.tensor("y", "exp_avg_sq").factor == 0.25);
  CHECK(world.rename(text, "b", "a") == "");
  CHECK(world.tensor("x").factor == 10);
  CHECK(world.tensor("x").summand == 3);
  CHECK(world.tensor("x", "exp_avg_sq").factor == 1);
}

TEST_CASE("rename: other names of a tensor follow it, or are left out") {
  const std::string text = R"(ucl 1
map a <-> b {
    "emb" <-> "table"
    "head" <-> "lm_head"
}
)";
  Whole world;
  world.add("emb", made_up("emb", {2, 2}));
  for (const char* name : {"head", "third"}) {
    Tensor tied = world.catalog.tensors[0];
    tied.name = name;
    tied.alias = 0;
    tied.pieces = {};
    world.catalog.tensors.push_back(tied);
  }
  world.add("loose", made_up("loose", {2}), "other");
  CHECK(world.rename(text, "a", "b") == "");
  CHECK(world.names() == Names{"fp32/table", "fp32/lm_head", "other/loose"});
  CHECK(world.catalog.tensors[1].alias == 0);
  CHECK(world.catalog.tensors[1].pieces.count == 0);

  Whole dropped;  // the tensor itself is not wanted: its other name is it now
  dropped.catalog = world.catalog;
  CHECK(dropped.rename("ucl 1\nmap b <-> c { \"table\" <-> drop \"lm_head\" <-> \"out\" }\n", "b", "c") ==
        "");
  CHECK(dropped.names() == Names{"fp32/out", "other/loose"});
  CHECK(!dropped.catalog.tensors[0].alias);
  CHECK(dropped.holds("out", made_up("emb", {2, 2})));
}

TEST_CASE("rename: tensors of no known kind are weights where there are no others") {
  Whole world;
  world.add("x.w", made_up("w", {2}), "other");
  world.add("notes", made_up("n", {2}), "other");
  CHECK(world.rename("ucl 1\nmap a <-> b { \"x.{n:*}\" <-> \"y.{n}\" }\n", "a", "b") == "");
  CHECK(world.names() == Names{"param/y.w", "other/notes"});
}

constexpr const char* kChain = R"(ucl 1
map a <-> b { "x.{i+2}" [u, w] <-> "y.{i}" [w, u] }
map c <-> b { "z.{i}" [w u] <-> "y.{i}" [w, u] }
map d <-> e { "p" <-> "q" }
map c <-> f { use c <-> b }
)";

TEST_CASE("rename: a chain of maps, each in its direction") {
  const Array x = made_up("x", {2, 3});
  const std::string text = std::string(kChain).replace(0, 5, "ucl 1\nwhere w = 3");
  Whole world;
  world.add("x.2", x);
  CHECK(world.rename(text, "a", "c") == "");
  CHECK(world.holds("z.0", filled({6}, [&](const Index& i) { return element(x, {i[0] % 2, i[0] / 2}); })));
  CHECK(world.rename(text, "c", "a") == "");
  CHECK(world.holds("x.2", x));
  CHECK(world.rename(text, "a", "a") == "");
}

std::string trouble_of(const std::string& text, const std::string& from, const std::string& to) {
  Whole world;
  try {
    return world.rename(text, from, to);
  } catch (const Error& e) {
    return cat(e.code(), ": ", e.message(), "; ", e.hint_text());
  }
}

TEST_CASE("rename: no chain, two chains, no naming") {
  CHECK(trouble_of(kChain, "a", "e") ==
        "usage.as: no chain of maps leads from `a` to `e`; the maps are a <-> b, c <-> b, c <-> f, d <-> e");
  CHECK(trouble_of(cat(kChain, "map f <-> b { \"t\" <-> \"t\" }\n"), "a", "f") ==
        "usage.as: two chains of maps lead from `a` to `f`; a <-> b <-> f; a <-> b <-> c <-> f");
  CHECK(trouble_of(kChain, "a", "hf_llama") ==
        "usage.as: spec.ucl has no naming `hf_llama`; it has a, b, c, d, e, f");
}

// ---- messages ----

// What is said of a map `a <-> b` with these rules, one a line, when `fill` made the tensors.
std::string said(const std::string& rules, const std::function<void(Whole&)>& fill,
                 const Settings& settings = {}) {
  Whole world;
  fill(world);
  const Names before = world.names();
  const std::string out = world.rename(cat("ucl 1\nmap a <-> b {\n", rules, "\n}\n"), "a", "b", settings);
  CHECK(world.names() == before);  // nothing is half done
  return out;
}

TEST_CASE("rename: a used rule whose names are taken or made above is overridden, not unused") {
  const std::string base =
      "ucl 1\nmap a <-> b { \"x.{i}.w\" <-> \"y.{i}.w\"  \"norm\" <-> \"n\"\n"
      "\"x.{i}.qkv\" [(q: u | k: u)] <-> q: \"y.{i}.q\" [u], k: \"y.{i}.k\" [u] }\n";
  const auto renamed = [&](const std::string& own, const std::string& from, const std::string& to,
                           const Names& names) {
    Whole world;
    for (const std::string& name : names) world.add(name, made_up("x", {4}));
    const std::string messages =
        world.rename(cat(base, "map a <-> mine { ", own, " use a <-> b }\n"), from, to);
    Names made;
    for (const Tensor& t : world.catalog.tensors) made.push_back(t.name);
    return std::pair(messages, made);
  };
  const Names a = {"x.0.w", "x.1.w", "x.0.qkv", "x.1.qkv", "norm"};
  const Names mine = {"y.0.w", "y.1.w", "y.0.q", "y.0.k", "y.1.q", "y.1.k", "last"};
  const std::string norm = "\"norm\" <-> \"last\"";
  CHECK(renamed(norm, "a", "mine", a) == std::pair(std::string(), mine));
  CHECK(renamed(norm, "mine", "a", mine) == std::pair(std::string(), a));
  // Of some numbers alone.
  const std::string first = cat(norm, " \"x.0.qkv\" <-> \"first\"");
  const Names short_mine = {"y.0.w", "y.1.w", "first", "y.1.q", "y.1.k", "last"};
  CHECK(renamed(first, "a", "mine", a) == std::pair(std::string(), short_mine));
  CHECK(renamed(first, "mine", "a", short_mine) == std::pair(std::string(), a));
  // What the other naming has no name for.
  CHECK(renamed("\"norm\" <-> drop", "mine", "a", {"y.0.w", "y.0.q", "y.0.k"}) ==
        std::pair(std::string(), Names{"x.0.w", "x.0.qkv"}));
  // A rule that is overridden in part is not.
  const std::string part = renamed(cat(norm, " \"x.{i}.w\" <-> \"y.{i}.q\""), "mine", "a", mine).first;
  CHECK_MESSAGE(part.find("`y.0.q` is missing") != part.npos, part);
  const std::string lacks = renamed(norm, "a", "mine", {"x.0.w", "norm"}).first;
  CHECK_MESSAGE(lacks.find("the rule for \"x.{i}.qkv\" takes nothing") != lacks.npos, lacks);
}

TEST_CASE("rename: names and rules that do not meet") {
  const auto fill = [](Whole& w) {
    w.add("x.0.w", made_up("w", {2}));
    w.add("x.1.w", made_up("w", {2}));
    w.add("x.0.b", made_up("b", {2}));
    w.add("extra", made_up("e", {2}));
  };
  CHECK(said("\"x.{i}.w\" <-> \"y.{i}.w\"\n\"x.{i}.b\" <-> \"y.{i}.b\"\n\"gone\" <-> \"lost\"", fill) ==
        R"(spec.ucl:2:5: error: no rule of this map takes the name `extra` of `a` [ucl.no_rule]
    2 | map a <-> b {
      |     ^^^^^^^
  hint: what is not wanted is dropped in writing: `"NAME" <-> drop`
spec.ucl:4:1: error: nothing of the checkpoint fits "x.{i}.b" at i = 1, which other rules have [ucl.missing_number]
    4 | "x.{i}.b" <-> "y.{i}.b"
      | ^^^^^^^^^
  hint: write `optional` before the rule if that may be
spec.ucl:5:1: error: the rule for "gone" takes nothing of the checkpoint [ucl.unused_rule]
    5 | "gone" <-> "lost"
      | ^^^^^^
  hint: write `optional` before it if that may be
3 errors
)");
  CHECK(
      said("optional \"gone\" <-> \"y.w\"\n\"x.0.{p:*}\" <-> \"y.{p}\"\n\"**\" <-> drop", fill) ==
      R"(spec.ucl:4:17: error: `x.0.w` becomes `y.w`, which another rule takes when the map is read backwards [ucl.not_reversible]
    4 | "x.0.{p:*}" <-> "y.{p}"
      |                 ^^^^^^^
spec.ucl:3:21: note: this one comes first
    3 | optional "gone" <-> "y.w"
      |                     ^^^^^
1 error
)");
  const std::string rules = "\"z\" <-> \"y.q\"\n\"x.{p:*}\" <-> \"y.{p}\"";
  CHECK(said(rules, [](Whole& w) {
          w.add("z", made_up("w", {2}));
          w.add("x.q", made_up("w", {2}));
        }) == R"(spec.ucl:4:15: error: `z` and `x.q` both become `y.q` [ucl.two_names]
    4 | "x.{p:*}" <-> "y.{p}"
      |               ^^^^^^^
1 error
)");
}

TEST_CASE("rename: parts of a match that are missing") {
  const std::string rule = "q: \"x.{i}.q\" [u], k: \"x.{i}.k\" [u] <-> \"y.{i}\" [(q: u | k: u)]";
  CHECK(
      said(rule,
           [](Whole& w) {
             w.add("x.0.q", made_up("q", {2}));
             w.add("x.0.k", made_up("k", {2}));
             w.add("x.1.q", made_up("q", {2}));
           }) ==
      R"(spec.ucl:3:22: error: `x.1.k` is missing: the rule takes it together with `x.1.q` [ucl.missing_part]
    3 | q: "x.{i}.q" [u], k: "x.{i}.k" [u] <-> "y.{i}" [(q: u | k: u)]
      |                      ^^^^^^^^^
1 error
)");
  CHECK(said(rule, [](Whole& w) {
          w.add("x.0.q", made_up("q", {2}));
          w.add("x.0.k", made_up("k", {2}));
          w.add("x.0.q", made_up("q", {2}), "exp_avg");
        }) == R"(spec.ucl:3:22: error: `x.0.k` has no exp_avg, which `x.0.q` has [ucl.missing_part]
    3 | q: "x.{i}.q" [u], k: "x.{i}.k" [u] <-> "y.{i}" [(q: u | k: u)]
      |                      ^^^^^^^^^
1 error
)");
  CHECK(
      said("\"x.{i}.q\" [u] <-> \"y\" [i, u]",
           [](Whole& w) {
             w.add("x.0.q", made_up("q", {2}));
             w.add("x.2.q", made_up("q", {2}));
           }) ==
      R"(spec.ucl:3:1: error: `i` is an axis on the other side, so its numbers run from 0: found 2, but not 1 [ucl.number_gap]
    3 | "x.{i}.q" [u] <-> "y" [i, u]
      | ^^^^^^^^^^^^^
1 error
)");
  CHECK(said("\"x.{i}.q\" [u] <-> \"y\" [i, u]",
             [](Whole& w) {
               w.add("x.0.q", made_up("q", {2}));
               w.add("x.1.q", made_up("q", {3}));
             }) ==
        R"(spec.ucl:3:1: error: the fp32 of `x.1.q` has the shape [3], that of `x.0.q` [2] [ucl.size_conflict]
    3 | "x.{i}.q" [u] <-> "y" [i, u]
      | ^^^^^^^^^
1 error
)");
}

TEST_CASE("rename: sizes that do not agree, or stay unknown") {
  const auto one = [](Whole& w) { w.add("x", made_up("x", {6, 2})); };
  CHECK(
      said("\"x\" [u v, w] <-> \"y\" [v u, w]", one) ==
      R"(spec.ucl:3:6: error: the size of `u`, `v` stays unknown: `x` has the shape [6, 2] [ucl.size_unknown]
    3 | "x" [u v, w] <-> "y" [v u, w]
      |      ^^^
  hint: say it with `where NAME = N`, or with a `given` and --set NAME=N
1 error
)");
  CHECK(
      said("where u = 4\n\"x\" [u v, w] <-> \"y\" [v u, w]", one) ==
      R"(spec.ucl:4:6: error: `x` has 6 here ([6, 2]), which the rule cannot give with u = 4 [ucl.size_conflict]
    4 | "x" [u v, w] <-> "y" [v u, w]
      |      ^^^
1 error
)");
  CHECK(said("where u = 4\n\"x\" [u, w] <-> \"y\" [w, u]", one) ==
        R"(spec.ucl:4:6: error: `x` has 6 here ([6, 2]), but the rule gives 4 with u = 4 [ucl.size_conflict]
    4 | "x" [u, w] <-> "y" [w, u]
      |      ^
1 error
)");
  CHECK(said("\"x\" [u, v, w] <-> \"y\" [v, u, w]", one) ==
        R"(spec.ucl:3:5: error: `x` has the shape [6, 2], expected 3 dims [ucl.rank]
    3 | "x" [u, v, w] <-> "y" [v, u, w]
      |     ^^^^^^^^^
1 error
)");
  CHECK(said("\"x\" [u, ...] <-> \"y\" [..., u]", [](Whole& w) { w.add("x", made_up("x", {})); }) ==
        R"(spec.ucl:3:5: error: `x` has the shape [], expected 1 or more dims [ucl.rank]
    3 | "x" [u, ...] <-> "y" [..., u]
      |     ^^^^^^^^
1 error
)");
  CHECK(said("a: \"x\" [u, ...], b: \"z\" [u, ...] <-> \"y\" [(a: u | b: u), ...]", [](Whole& w) {
          w.add("x", made_up("x", {2, 3}));
          w.add("z", made_up("z", {2, 2}));
        }) == R"(spec.ucl:3:25: error: `z` has the shape [2, 2], expected [3] for `...`, as in `x` [ucl.rank]
    3 | a: "x" [u, ...], b: "z" [u, ...] <-> "y" [(a: u | b: u), ...]
      |                         ^^^^^^^^
1 error
)");
  CHECK(said("\"x\" [u, w] <-> \"y\" [w, u]", [&](Whole& w) {
          one(w);
          w.add("x", made_up("x", {6}), "exp_avg");
        }) == R"(spec.ucl:3:1: error: the exp_avg of `x` has the shape [6], its fp32 [6, 2] [ucl.state_shape]
    3 | "x" [u, w] <-> "y" [w, u]
      | ^^^^^^^^^^
1 error
)");
}

TEST_CASE("rename: what cannot become one tensor, or too many") {
  const std::string rule = "q: \"q\" [u], k: \"k\" [u] <-> \"y\" [(q: u | k: u)]";
  const auto both = [](Whole& w) {
    w.add("q", made_up("q", {2}));
    w.add("k", made_up("k", {2}));
  };
  CHECK(said(rule, [&](Whole& w) {
          both(w);
          w.catalog.tensors[1].dtype = DType::kI32;
        }) == R"(spec.ucl:3:28: error: `y` would be fp32 of `q` and i32 of `k` [ucl.dtype]
    3 | q: "q" [u], k: "k" [u] <-> "y" [(q: u | k: u)]
      |                            ^^^
1 error
)");
  CHECK(
      said(rule,
           [&](Whole& w) {
             both(w);
             w.add("q", Array{{}, {3}}, "step");
             w.add("k", Array{{}, {4}}, "step");
           }) ==
      R"(spec.ucl:3:28: error: the step of `q` and `k` differ, and both become that of `y` [ucl.numbers_differ]
    3 | q: "q" [u], k: "k" [u] <-> "y" [(q: u | k: u)]
      |                            ^^^
1 error
)");
  CHECK(
      said("q: \"q\" [u] + 1, k: \"k\" [u] <-> \"y\" [(q: u | k: u)]", both) ==
      R"(spec.ucl:3:32: error: the parts of `y` are multiplied by, or added to, different numbers [ucl.values_differ]
    3 | q: "q" [u] + 1, k: "k" [u] <-> "y" [(q: u | k: u)]
      |                                ^^^^^^^^^^^^^^^^^^^
1 error
)");
  CHECK(said("\"q\" <-> \"y\" * 2\n\"k\" <-> drop", [&](Whole& w) {
          both(w);
          w.catalog.tensors[0].dtype = DType::kI32;
        }) == R"(spec.ucl:3:9: error: `q` is i32, of which there is no sum and no product [ucl.dtype]
    3 | "q" <-> "y" * 2
      |         ^^^^^^^
1 error
)");
  CHECK(said("\"q\" <-> \"y\" * 0\n\"k\" <-> drop", both) ==
        R"(spec.ucl:3:13: error: this value is 0 or stays unknown [ucl.size_unknown]
    3 | "q" <-> "y" * 0
      |             ^^^
1 error
)");
  const auto huge = [](const Shape& shape) {
    return [shape](Whole& w) {
      Tensor& t = w.add("q", Array{{0}, {}});
      t.shape = shape;
      t.refusal = "huge";
    };
  };
  CHECK(said("\"q\" [e, u] <-> \"y.{e}\" [u]", huge({int64_t{1} << 40, 1})) ==
        R"(spec.ucl:3:16: error: the map would make more than 2,097,152 tensors [ucl.too_many_tensors]
    3 | "q" [e, u] <-> "y.{e}" [u]
      |                ^^^^^^^
1 error
)");
  CHECK(
      said("\"q\" [u, w] <-> \"y\" [w, u]", huge({int64_t{1} << 40, int64_t{1} << 40})) ==
      R"(spec.ucl:3:16: error: a tensor of this name would have more elements than 64 bits count [ucl.too_large]
    3 | "q" [u, w] <-> "y" [w, u]
      |                ^^^
1 error
)");
}

// ---- random maps ----

// Elements by name: "q d1 g0" is the element of block q at d = 1, g = 0.
struct Dims {
  Shape shape;
  std::vector<std::string> elements;
};

class MapSampler {
 public:
  explicit MapSampler(uint32_t seed) : random_(seed) {
    const int64_t axes = pick(2, 4);
    for (int64_t a = 0; a < axes; ++a)
      sizes_.emplace_back(std::string(1, static_cast<char>('s' + a)), pick(1, 3));
    const int64_t blocks = pick(1, 3);
    for (int64_t b = 0; b < blocks; ++b) {
      blocks_.emplace_back();
      for (const auto& [axis, size] : sizes_)
        if (b == 0 || pick(0, 3) > 0) blocks_.back().push_back(axis);
    }
  }

  int64_t pick(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random_); }

  std::string where() const {
    std::string out;
    for (const auto& [axis, size] : sizes_) out += cat(out.empty() ? "where " : ", ", axis, " = ", size);
    return out;
  }

  // One side: its text, and the elements of each tensor by name.
  std::string side(const std::string& prefix, std::map<std::string, Dims>& tensors) {
    if (blocks_.size() == 1 || pick(0, 1)) return apart(prefix, tensors);
    return fused(prefix, tensors);
  }

 private:
  using Axes = std::vector<std::string>;
  int64_t size(const std::string& axis) const {
    for (const auto& [name, size] : sizes_)
      if (name == axis) return size;
    return 0;
  }
  Axes shuffled(Axes axes) {
    std::shuffle(axes.begin(), axes.end(), random_);
    return axes;
  }

  // The elements of a product: names of the coordinates, outermost first.
  Dims product(const Dims& a, const Dims& b) const {
    Dims out;
    for (const std::string& x : a.elements)
      for (const std::string& y : b.elements) out.elements.push_back(cat(x, " ", y));
    return out;
  }
  Dims axis(const std::string& name) const {
    Dims out;
    for (int64_t i = 0; i < size(name); ++i) out.elements.push_back(cat(name, i));
    return out;
  }
  static std::string sorted(const std::string& element) {
    std::vector<std::string> words;
    size_t begin = 0;
    while (begin < element.size()) {
      const size_t end = std::min(element.find(' ', begin), element.size());
      if (end > begin) words.push_back(element.substr(begin, end - begin));
      begin = end + 1;
    }
    std::sort(words.begin(), words.end());
    std::string out;
    for (const std::string& w : words) out += cat(w, " ");
    return out;
  }

  // Factors as dims: `texts` and what they hold, cut into dims at random.
  std::string written(const std::vector<std::string>& texts, const std::vector<Dims>& factors, Dims& out) {
    std::string text = "[";
    Dims all{{}, {""}};
    int64_t dim = 1;
    for (size_t i = 0; i < texts.size(); ++i) {
      const bool cut = i > 0 && pick(0, 1);
      text += cat(i == 0 ? "" : cut ? ", " : " ", texts[i]);
      if (cut) out.shape.push_back(std::exchange(dim, 1));
      dim *= static_cast<int64_t>(factors[i].elements.size());
      all = product(all, factors[i]);
    }
    if (!texts.empty()) out.shape.push_back(dim);
    for (const std::string& e : all.elements) out.elements.push_back(sorted(e));
    return text + "]";
  }

  std::string apart(const std::string& prefix, std::map<std::string, Dims>& tensors) {
    std::string text;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const std::string label = cat("b", b), name = cat(prefix, ".", label);
      std::vector<Dims> factors;
      const Axes axes = shuffled(blocks_[b]);
      for (const std::string& a : axes) factors.push_back(axis(a));
      Dims& d = tensors[name];
      const std::string shape = written(axes, factors, d);
      for (std::string& e : d.elements) e = sorted(cat(e, label));
      text += cat(b ? ", " : "", label, ": \"", name, "\" ", shape);
    }
    return text;
  }

  std::string fused(const std::string& prefix, std::map<std::string, Dims>& tensors) {
    Axes outside;
    for (const auto& [a, size] : sizes_) {
      const bool in_all = std::all_of(blocks_.begin(), blocks_.end(), [&, &name = a](const Axes& block) {
        return std::find(block.begin(), block.end(), name) != block.end();
      });
      if (in_all && pick(0, 2) > 0) outside.push_back(a);
    }
    outside = shuffled(outside);
    std::string blocks;
    Dims sum;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      blocks += cat(b ? " | " : "(", "b", b, ":");
      Dims block{{}, {cat("b", b)}};
      bool any = false;
      for (const std::string& a : shuffled(blocks_[b])) {
        if (std::find(outside.begin(), outside.end(), a) != outside.end()) continue;
        blocks += cat(" ", a);
        block = product(block, axis(a));
        any = true;
      }
      if (!any) blocks += " 1";
      sum.elements.insert(sum.elements.end(), block.elements.begin(), block.elements.end());
    }
    std::vector<std::string> texts = outside;
    std::vector<Dims> factors;
    for (const std::string& a : outside) factors.push_back(axis(a));
    const int64_t at = pick(0, static_cast<int64_t>(outside.size()));
    texts.insert(texts.begin() + at, blocks + ")");
    factors.insert(factors.begin() + at, sum);
    const std::string name = cat(prefix, ".all");
    return cat("\"", name, "\" ", written(texts, factors, tensors[name]));
  }

  std::mt19937 random_;
  std::vector<std::pair<std::string, int64_t>> sizes_;
  std::vector<Axes> blocks_;
};

// The boxes tile the tensor, and along factorings that nest: else a plan would refuse it.
bool can_be_planned(const Whole& world, const Tensor& t) {
  std::vector<plan::Box> boxes;
  for (const Piece& p : world.catalog.pieces_of(t.pieces))
    boxes.push_back(plan::coarsen(0, world.catalog.axes_of(p)));
  return !plan::find_cover_problem(boxes, numel_of(t.shape));
}

TEST_CASE("rename: random maps against a reference that names every element") {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    MapSampler sampler(seed);
    std::map<std::string, Dims> sources, targets;
    const std::string left = sampler.side("l", sources), right = sampler.side("r", targets);
    const std::string text =
        cat("ucl 1\n", sampler.where(), "\nmap a <-> b { ", left, " <-> ", right, " }\n");
    INFO(text);
    Whole world;
    std::map<std::string, float> value;
    std::map<std::string, Array> before;
    for (const auto& [name, dims] : sources) {
      Array a{dims.shape, {}};
      for (const std::string& e : dims.elements) {
        const float v = static_cast<float>(value.size() + 1);
        REQUIRE(value.emplace(e, v).second);
        a.values.push_back(v);
      }
      std::vector<int64_t> cuts;
      for (int64_t c = sampler.pick(0, 3); c > 0; --c) cuts.push_back(sampler.pick(0, numel_of(a.shape)));
      std::sort(cuts.begin(), cuts.end());
      world.add_sharded(name, a, cuts);
      before.emplace(name, std::move(a));
    }
    REQUIRE(world.rename(text, "a", "b") == "");
    for (const auto& [name, dims] : targets) {
      Array expected{dims.shape, {}};
      for (const std::string& e : dims.elements) expected.values.push_back(value.at(e));
      REQUIRE(world.tensor(name).shape == expected.shape);
      REQUIRE(world.values(world.tensor(name).pieces, numel_of(expected.shape)) == expected.values);
      REQUIRE(can_be_planned(world, world.tensor(name)));
    }
    REQUIRE(world.rename(text, "b", "a") == "");
    for (const auto& [name, a] : before) REQUIRE(world.holds(name, a));
  }
}

}  // namespace
}  // namespace uckpt::layout
