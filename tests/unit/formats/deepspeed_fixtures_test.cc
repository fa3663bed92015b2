// Every fixture, put together from the catalog's pieces, against what training itself says.
#include <unistd.h>

#include "tests/unit/formats/deepspeed_support.h"

using namespace deepspeed_test;

namespace {

struct Tolerance {
  double rtol, atol;
};

// The fixtures' README: exact, but where the oracle is another training run.
Tolerance tolerance_of(const nlohmann::json& expected) {
  const std::string oracle = expected.value("oracle", "");
  if (oracle.find("full training") != oracle.npos) return {2e-6, 1e-7};
  if (oracle.find("rounding") != oracle.npos) return {1e-3, 2e-5};
  return {0, 0};
}

void check_close(const Bytes& found, const Bytes& expected, const Tolerance& t, const std::string& name) {
  REQUIRE_MESSAGE(found.size() == expected.size(), name);
  if (found == expected) return;
  REQUIRE_MESSAGE(t.rtol > 0, name, " differs");
  for (size_t i = 0; i < found.size(); i += 4) {
    const double a = load_le<float>(found.data() + i), b = load_le<float>(expected.data() + i);
    REQUIRE_MESSAGE(std::abs(a - b) <= t.atol + t.rtol * std::abs(b), name, " element ", i / 4);
  }
}

std::string path_in_catalog(const std::string& path) {
  return path.starts_with("frozen/") ? "param/" + path.substr(7) : path;
}

void check_copies(const Catalog& catalog, const Assembler& assembler) {
  for (const Tensor& t : catalog.tensors) {
    if (t.copies.empty()) continue;
    const Bytes own = assembler.bytes(t);
    for (const Copy& c : t.copies) {
      const Bytes copy = assembler.bytes(c.pieces, c.dtype, numel_of(t.shape), t.path() + " " + c.what);
      if (c.dtype == t.dtype) {
        CHECK_MESSAGE(copy == own, t.path(), " ", c.what);
        continue;
      }
      REQUIRE(t.dtype == DType::kF32);
      REQUIRE(c.dtype == DType::kBF16);
      for (size_t i = 0; i < copy.size() / 2; ++i) {
        const uint16_t expected = rounded_bf16(load_le<float>(own.data() + 4 * i));
        REQUIRE_MESSAGE(load_le<uint16_t>(copy.data() + 2 * i) == expected, t.path(), " ", c.what);
      }
    }
  }
}

void check_steps(const Catalog& catalog, const Assembler& assembler, const nlohmann::json& expected) {
  const auto step = expected.find("step");
  if (step == expected.end()) return;
  const auto check = [&](const Tensor& t, double value) {
    CHECK_MESSAGE(t.shape.empty(), t.path());
    CHECK_MESSAGE(number(assembler.bytes(t), t.dtype) == value, t.path());
  };
  if (step->is_object()) {
    for (const auto& [key, value] : step->items()) {
      const std::string& name = key;
      const Tensor* t = find(catalog, "step/" + name);
      REQUIRE_MESSAGE(t, name);
      check(*t, value);
    }
  }
  size_t steps = 0, masters = 0;
  for (const Tensor& t : catalog.tensors) {
    if (t.state == "fp32" && !t.alias) ++masters;
    if (t.state != "step") continue;
    ++steps;
    if (step->is_number()) check(t, *step);
  }
  CHECK(steps == masters);
}

void check_objects(const Catalog& catalog, const nlohmann::json& expected) {
  std::string all;
  bool optimizer = false;
  for (const Object& o : catalog.objects) {
    const nlohmann::json view = nlohmann::json::parse(o.json);
    all += view.dump();
    CHECK(o.size > 0);
    optimizer |= o.origin.find("optim") != o.origin.npos;
  }
  CHECK(optimizer);
  if (expected.contains("global_steps")) {
    CHECK(catalog.iteration == expected["global_steps"].get<int64_t>());
    CHECK(all.find(cat("\"global_steps\":", expected["global_steps"].get<int64_t>())) != all.npos);
  }
  if (expected.contains("param_groups") && all.find("param_groups") != all.npos) {
    for (const auto& group : expected["param_groups"]) {
      for (const char* key : {"lr", "betas", "eps", "weight_decay"}) {
        CHECK_MESSAGE(all.find(cat("\"", key, "\":", group[key].dump())) != all.npos, key);
      }
    }
  }
}

void check_fixture(const std::string& name) {
  CAPTURE(name);
  const nlohmann::json expected = torch_test::read_json(fixture(name) + "/expected.json");
  const Catalog catalog = read_checkpoint(fixture(name) + "/ckpt");
  if (catalog.refusal) FAIL(catalog.refusal->line());
  for (const std::string& w : catalog.warnings) MESSAGE(name, ": ", w);
  const Assembler assembler(catalog);
  const Tolerance tolerance = tolerance_of(expected);
  const auto tensors = torch_test::read_safetensors(fixture(name) + "/expected.safetensors");
  size_t named = 0;
  for (const auto& [key, e] : tensors) {
    const std::string& path = key;
    const Tensor* t = find(catalog, path_in_catalog(path));
    REQUIRE_MESSAGE(t, path);
    REQUIRE_MESSAGE(t->refusal.empty(), path, ": ", t->refusal);
    CHECK_MESSAGE(info(t->dtype).safetensors == e.dtype, path);
    CHECK_MESSAGE(t->shape == e.shape, path);
    check_close(assembler.bytes(*t), e.bytes, tolerance, path);
    ++named;
  }
  // Nothing else but steps, second names and what belongs to no parameter.
  for (const Tensor& t : catalog.tensors) {
    const bool extra = t.alias || t.state == "step" || t.state == "other";
    if (!extra) CHECK_MESSAGE((tensors.contains(t.path()) || tensors.contains("frozen/" + t.name)), t.path());
  }
  const nlohmann::json shared = expected.value("shared", nlohmann::json::object());
  for (const auto& [key, of] : shared.items()) {
    const std::string& alias = key;
    const Tensor* t = find(catalog, "fp32/" + alias);
    REQUIRE_MESSAGE(t, alias);
    REQUIRE(t->alias);
    CHECK(catalog.tensors[*t->alias].name == of.get<std::string>());
  }
  check_copies(catalog, assembler);
  check_steps(catalog, assembler, expected);
  check_objects(catalog, expected);
}

constexpr const char* kFixtures[] = {"zero1-dp2",
                                     "zero2-dp3",
                                     "zero2-dp2-roundrobin",
                                     "zero1-dp2-elastic",
                                     "zero1-dp2-legacy-pickle",
                                     "zero2-dp2-paramalign",
                                     "zero3-dp2",
                                     "zero3-dp4-subgroups",
                                     "bf16-zero1-dp2",
                                     "bf16-zero2-dp2",
                                     "bf16-zero3-dp2",
                                     "bf16opt-zero1-dp2",
                                     "pipe-pp2-dp2",
                                     "moe-ep2-zero1-dp4",
                                     "moe-ep2-zero2-dp2",
                                     "moe-ep2-nozero-dp2",
                                     "universal-zero1-dp2",
                                     "universal-zero3-dp2",
                                     "universal-zero1-tp2-dp2"};

}  // namespace

TEST_CASE("deepspeed: every fixture equals what training says") {
  for (const char* name : kFixtures) check_fixture(name);
}

TEST_CASE("deepspeed: facts of the fixtures") {
  const Catalog zero1 = read_checkpoint(fixture("zero1-dp2") + "/ckpt");
  CHECK(zero1.kind == "deepspeed");
  CHECK(zero1.description == "DeepSpeed checkpoint, ZeRO stage 1");
  CHECK(zero1.zero_stage == 1);
  CHECK(zero1.mesh.dp == 2);
  CHECK(zero1.warnings.empty());
  const auto fact = [](const Catalog& c, std::string_view key) -> std::string {
    for (const auto& [k, v] : c.facts) {
      if (k == key) return v;
    }
    return "";
  };
  CHECK(fact(zero1, "optimizer") == "ZeRO stage 1");
  CHECK(fact(zero1, "param groups") == "3");
  CHECK(fact(zero1, "ds_version") == "0.19.8");
  CHECK(fact(zero1, "module weights") == "");  // its copies say it
  CHECK(fact(zero1, "round-robin gradients") == "");
  CHECK(zero1.objects.size() == 2);  // the ranks' optimizer files differ in their layout only
  CHECK(find(zero1, "fp32/blocks.1.qkv.weight")->layout == "2 dp shards, flat");

  const Catalog robin = read_checkpoint(fixture("zero2-dp2-roundrobin") + "/ckpt");
  CHECK(fact(robin, "round-robin gradients") != "");
  for (const char* plain : {"zero2-dp3", "zero2-dp2-paramalign", "zero1-dp2-elastic", "bf16opt-zero1-dp2",
                            "moe-ep2-zero1-dp4", "pipe-pp2-dp2"}) {
    CHECK_MESSAGE(fact(read_checkpoint(fixture(plain) + "/ckpt"), "round-robin gradients") == "", plain);
  }
  CHECK(fact(read_checkpoint(fixture("zero1-dp2-elastic") + "/ckpt"), "optimizer") ==
        "ZeRO stage 1, elastic state");
  CHECK(fact(read_checkpoint(fixture("bf16opt-zero1-dp2") + "/ckpt"), "optimizer") == "BF16_Optimizer");
  CHECK(fact(read_checkpoint(fixture("bf16-zero3-dp2") + "/ckpt"), "module weights") == "bf16");

  const Catalog pipe = read_checkpoint(fixture("pipe-pp2-dp2") + "/ckpt");
  CHECK(pipe.mesh.pp == 2);
  CHECK(pipe.mesh.dp == 2);
  const Tensor* tied = find(pipe, "fp32/tied_modules.embed.word_embeddings.weight");
  REQUIRE(tied);
  REQUIRE(tied->copies.size() == 2);
  CHECK(tied->copies[0].what == "replica in pipeline stage 1");
  CHECK(tied->copies[1].what == "module weight in layer_00-model_00-model_states.pt");
  CHECK(tied->copies[1].is_module);

  const Catalog moe = read_checkpoint(fixture("moe-ep2-zero1-dp4") + "/ckpt");
  CHECK(moe.mesh.ep == 2);
  const Catalog universal = read_checkpoint(fixture("universal-zero3-dp2") + "/ckpt");
  CHECK(universal.kind == "deepspeed-universal");
  CHECK(universal.description == "DeepSpeed universal checkpoint, made from ZeRO stage 3");
}

TEST_CASE("deepspeed: the argument may be the root, the tag or a file") {
  const std::string root = fixture("zero2-dp3") + "/ckpt";
  const auto names = [](const Catalog& c) {
    std::string out;
    for (const Tensor& t : c.tensors) out += t.path() + "\n";
    return out;
  };
  const std::string expected = names(read_checkpoint(root));
  for (const char* inside : {"/", "/global_step4", "/global_step4/", "/latest",
                             "/global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
                             "/global_step4/mp_rank_00_model_states.pt"}) {
    CAPTURE(inside);
    REQUIRE(deepspeed::recognises(open_target(root + inside)));
    CHECK(names(read_checkpoint(root + inside)) == expected);
  }
  const std::string universal = fixture("universal-zero1-dp2") + "/ckpt";
  const std::string whole = names(read_checkpoint(universal));
  for (const char* inside :
       {"/global_step4_universal", "/latest_universal", "/global_step4_universal/zero/gain/fp32.pt",
        "/global_step4_universal/zero/optimizer_state.pt"}) {
    CAPTURE(inside);
    REQUIRE(deepspeed::recognises(open_target(universal + inside)));
    CHECK(names(read_checkpoint(universal + inside)) == whole);
  }
  CHECK_FALSE(deepspeed::recognises(open_target(fixture("zero2-dp3") + "/expected.json")));
  CHECK_FALSE(deepspeed::recognises(open_target(torch_test::data("torch"))));
}

TEST_CASE("deepspeed: tensor parallel ranks are read as fragments, with the rules to join them") {
  for (const char* name : {"zero1-tp2-dp2", "bf16opt-zero1-tp2-dp2", "zero2-tp2-dp1-ucp04",
                           "autotp2-zero1-dp2", "autotp2-zero3-dp2", "pipe-pp2-tp2-dp1"}) {
    CAPTURE(name);
    const Catalog c = read_checkpoint(fixture(name) + "/ckpt");
    CHECK_FALSE(c.refusal);
    CHECK(c.mesh.tp == 2);
    REQUIRE(c.ranks.size() == 2);
    CHECK(c.rules.starts_with("ucl 1\n"));
    const auto expected = torch_test::read_safetensors(fixture(name) + "/expected.safetensors");
    for (const auto& [key, e] : expected) {
      const std::string& path = key;
      for (const RankSet& set : c.ranks) {
        const bool there = std::any_of(set.tensors.begin(), set.tensors.end(),
                                       [&](const Tensor& t) { return t.path() == path_in_catalog(path); });
        CHECK_MESSAGE(there, path);
      }
    }
  }
  const Catalog c = read_checkpoint(fixture("zero1-tp2-dp2") + "/ckpt");
  const auto& first = c.ranks[0].tensors;
  const auto qkv = std::find_if(first.begin(), first.end(), [](const Tensor& t) {
    return t.path() == "fp32/layers.0.attention.qkv.weight";
  });
  REQUIRE(qkv != first.end());
  CHECK(qkv->shape == Shape{10, 11});
  // The same random state on both ranks, or each under its file's name.
  size_t states = 0;
  for (const Tensor& t : c.tensors) states += t.state == "other" && t.name.ends_with("torch_rng_state");
  CHECK(states >= 1);
}

TEST_CASE("deepspeed: without objects no view is made") {
  OpenOptions options;
  options.want_objects = false;
  CHECK(read_checkpoint(fixture("zero1-dp2") + "/ckpt", options).objects.empty());
}
