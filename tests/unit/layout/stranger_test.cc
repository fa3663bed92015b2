// The test of the language's design: a stranger's fifteen lines for grouped-query attention, SwiGLU, a padded
// vocabulary and a tied output over TP 4, PP 2; and the four classic mistakes.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>

#include "lib/base/text.h"
#include "tests/unit/layout/assemble_testing.h"

namespace uckpt::layout {
namespace {

using namespace testing;

constexpr int64_t kTp = 4, kPp = 2, kLayers = 2;  // of each stage
constexpr int64_t kHeads = 8, kGroups = 4, kHeadDim = 2, kHidden = 6, kFfn = 12, kVocab = 50, kPadded = 64;
constexpr int64_t kQueries = kHeads / kGroups * kHeadDim;  // rows of q in a group

std::string stranger() {
  std::ifstream file(UCKPT_SAMPLES "/rules/gqa-swiglu.ucl");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Settings settings() {
  Settings s;
  s.arguments = {{"num_attention_heads", kHeads},
                 {"num_query_groups", kGroups},
                 {"hidden_size", kHidden},
                 {"ffn_hidden_size", kFfn},
                 {"vocab_size", kVocab}};
  s.mesh = {{"tp", kTp}, {"pp", kPp}};
  return s;
}

struct Model {
  Array embedding = made_up("embedding", {kVocab, kHidden}), norm = made_up("norm", {kHidden});
  Array qkv(int64_t i) const {
    return made_up(cat("qkv", i), {kGroups * (kQueries + 2 * kHeadDim), kHidden});
  }
  Array proj(int64_t i) const { return made_up(cat("proj", i), {kHidden, kHeads * kHeadDim}); }
  Array fc1(int64_t i) const { return made_up(cat("fc1", i), {2 * kFfn, kHidden}); }
  Array fc2(int64_t i) const { return made_up(cat("fc2", i), {kHidden, kFfn}); }
  Array layer_norm(int64_t i) const { return made_up(cat("ln", i), {kHidden}); }
};

std::vector<int64_t> padded_rows(int64_t tp) {
  std::vector<int64_t> out;
  for (int64_t r = tp * kPadded / kTp; r < (tp + 1) * kPadded / kTp; ++r) out.push_back(r < kVocab ? r : -1);
  return out;
}

World world() {
  World w;
  const Model m;
  for (int64_t pp = 0; pp < kPp; ++pp) {
    for (int64_t tp = 0; tp < kTp; ++tp) {
      const Coordinate at = {{"pp", pp}, {"tp", tp}};
      const auto share = [&](int64_t n) { return range(tp * n / kTp, (tp + 1) * n / kTp); };
      for (int64_t local = 0; local < kLayers; ++local) {
        const int64_t i = pp * kLayers + local;
        const std::string l = cat("layers.", local, ".");
        w.put(at, l + "qkv.weight", rows_of(m.qkv(i), share(m.qkv(i).shape[0])));
        const int64_t width = kHeads * kHeadDim / kTp, ffn = kFfn / kTp;
        w.put(at, l + "proj.weight", columns_of(m.proj(i), tp * width, (tp + 1) * width));
        std::vector<int64_t> rows = range(tp * ffn, (tp + 1) * ffn);
        for (const int64_t r : range(kFfn + tp * ffn, kFfn + (tp + 1) * ffn)) rows.push_back(r);
        w.put(at, l + "fc1.weight", rows_of(m.fc1(i), rows));
        w.put(at, l + "fc2.weight", columns_of(m.fc2(i), tp * ffn, (tp + 1) * ffn));
        w.put(at, l + "input_layernorm.weight", m.layer_norm(i));
      }
      if (pp == 0) w.put(at, "embedding.weight", rows_of(m.embedding, padded_rows(tp)));
      if (pp == kPp - 1) {
        w.put(at, "output.weight", rows_of(m.embedding, padded_rows(tp)));
        w.put(at, "norm.weight", m.norm);
      }
    }
  }
  return w;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string joined(const std::string& text) { return world().join(text, "stranger", settings()); }

TEST_CASE("stranger: fifteen lines join the whole model") {
  World w = world();
  CHECK(w.join(stranger(), "stranger", settings()) == "");
  const Model m;
  CHECK(w.holds("embedding.weight", m.embedding));
  CHECK(w.holds("norm.weight", m.norm));
  for (int64_t i = 0; i < kPp * kLayers; ++i) {
    CHECK(w.holds(cat("layers.", i, ".qkv.weight"), m.qkv(i)));
    CHECK(w.holds(cat("layers.", i, ".proj.weight"), m.proj(i)));
    CHECK(w.holds(cat("layers.", i, ".fc1.weight"), m.fc1(i)));
    CHECK(w.holds(cat("layers.", i, ".fc2.weight"), m.fc2(i)));
    CHECK(w.holds(cat("layers.", i, ".input_layernorm.weight"), m.layer_norm(i)));
    CHECK(w.tensor(cat("layers.", i, ".input_layernorm.weight")).copies.size() == kTp - 1);
  }
  const Tensor& output = w.tensor("output.weight");
  REQUIRE(output.alias);
  const Tensor& embedding = w.catalog.tensors[*output.alias];
  CHECK(embedding.name == "embedding.weight");
  CHECK(embedding.copies.size() == kTp);  // the last stage's shares, to be compared
  // What no shape proves is said.
  CHECK(w.trusted ==
        std::vector<std::string>{
            "heads = 8, from the argument num_attention_heads",
            "groups = 4, from the argument num_query_groups", "h = 6, from the argument hidden_size",
            "f = 12, from the argument ffn_hidden_size", "v = 50, from the argument vocab_size",
            "the order (q: r | k: 1 | v: 1) in \"layers.{i}.qkv.weight\", which no shape tells",
            "the order (gate: f@tp | up: f@tp) in \"layers.{i}.fc1.weight\", which no shape tells"});
}

TEST_CASE("stranger: a row-parallel weight joined along dim 0") {
  CHECK(
      joined(replaced(stranger(), "[h, g@tp r d]", "[h@tp, g r d]")) ==
      R"(spec.ucl:11:33: error: `layers.0.proj.weight`: the ranks' shares of `h` over `tp` add up to 24, but `h` is 6 [ucl.shares]
   11 |     "layers.{i}.proj.weight"   [h@tp, g r d]
      |                                 ^^^^
  hint: fragments of shape [6, 4]
1 error
)");
}

TEST_CASE("stranger: SwiGLU joined plainly") {
  CHECK(
      joined(replaced(stranger(), "[(gate: f@tp | up: f@tp), h]", "[f@tp, h]")) ==
      R"(spec.ucl:12:33: error: `layers.0.fc1.weight`: the ranks' shares of `f` over `tp` add up to 24, but `f` is 12 [ucl.shares]
   12 |     "layers.{i}.fc1.weight"    [f@tp, h]
      |                                 ^^^^
  hint: fragments of shape [6, 6]
1 error
)");
}

TEST_CASE("stranger: interleaved q, k, v taken for plain") {
  World w = world();
  const std::string text =
      replaced(stranger(), "[g@tp (q: r | k: 1 | v: 1) d, h]", "[(q: g@tp r d | k: g@tp d | v: g@tp d), h]");
  CHECK(w.join(text, "stranger", settings()) == "");  // the shapes are the same
  CHECK_FALSE(w.holds("layers.0.qkv.weight", Model().qkv(0)));
  bool said = false;
  for (const std::string& t : w.trusted)
    said |=
        t ==
        "the order (q: g@tp r d | k: g@tp d | v: g@tp d) in \"layers.{i}.qkv.weight\", which no shape tells";
  CHECK(said);  // only values could tell, and that is said
}

// Experts in files of each rank's own numbers.
World experts() {
  World w;
  for (int64_t ep = 0; ep < 4; ++ep) {
    const Coordinate at = {{"ep", ep}};
    for (int64_t local = 0; local < 2; ++local)
      w.put(at, cat("layers.0.experts.", local, ".w"), made_up(cat("expert", 2 * ep + local), {3}));
    w.put(at, "layers.0.router", made_up("router", {2}));
  }
  return w;
}

const std::string kExperts =
    "ucl 1\nlayout moe over ep {\n    index e @ep local\n    \"layers.{i}.experts.{e}.**\" [...]\n"
    "    \"**\" replicate\n}\n";

TEST_CASE("stranger: local expert numbers become global ones") {
  World w = experts();
  CHECK(w.join(kExperts, "moe", {{}, {}, {{"ep", 4}}}) == "");
  for (int64_t e = 0; e < 8; ++e) {
    CHECK(w.holds(cat("layers.0.experts.", e, ".w"), made_up(cat("expert", e), {3})));
    CHECK(w.tensor(cat("layers.0.experts.", e, ".w")).copies.empty());
  }
  CHECK(w.tensor("layers.0.router").copies.size() == 3);
}

TEST_CASE("stranger: a local expert number taken for a global one") {
  CHECK(
      experts().join(replaced(kExperts, "@ep local", "@ep"), "moe", {{}, {}, {{"ep", 4}}}) ==
      R"(spec.ucl:4:5: error: `layers.0.experts.0.w`: it lies on rank ep 1, where its rule has none [ucl.misplaced]
    4 |     "layers.{i}.experts.{e}.**" [...]
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^
  hint: if the files of each rank count from 0, its `index` is `local`
1 error
)");
}

TEST_CASE("stranger: no wildcard takes a local number") {
  World w = experts();
  for (int64_t ep = 0; ep < 4; ++ep) w.put({{"ep", ep}}, "layers.0.experts.0.bias", made_up("b", {2}));
  CHECK(
      w.join(replaced(kExperts, ".experts.{e}.**", ".experts.{e}.w"), "moe", {{}, {}, {{"ep", 4}}}) ==
      R"(spec.ucl:5:5: error: a wildcard takes the local number in `layers.0.experts.0.bias` [ucl.wildcard_local]
    5 |     "**" replicate
      |     ^^^^
spec.ucl:4:5: note: names with that number begin so
    4 |     "layers.{i}.experts.{e}.w" [...]
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^
  hint: write the number as this rule does, or `drop` the name
1 error
)");
}

}  // namespace
}  // namespace uckpt::layout
