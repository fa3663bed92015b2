// Legacy checkpoints as fragments: where they stand, what each rank has, and what is wrong with damaged ones.
#include "megatron_support.h"

using namespace megatron_test;

namespace {

Catalog read(const std::string& path) { return megatron::read_legacy(open_target(path), {}); }

// What a conversion would say; the catalog itself must still open.
std::string refusal_of(const Scratch& s) {
  const Catalog c = read(s.path());
  REQUIRE(c.refusal);
  CHECK(!c.ranks.empty());
  return s.line_of(*c.refusal);
}

std::string thrown_by(const Scratch& s) {
  try {
    read(s.path());
  } catch (const Error& e) {
    return s.line_of(e);
  }
  FAIL("it opened");
  return "";
}

const Tensor* find(const RankSet& set, const std::string& path) {
  const auto at = std::ranges::find(set.tensors, path, &Tensor::path);
  return at == set.tensors.end() ? nullptr : &*at;
}

std::string fact(const Catalog& c, const std::string& key) {
  for (const auto& [name, value] : c.facts)
    if (name == key) return value;
  return "";
}

}  // namespace

TEST_CASE("megatron: a rank set for each file and virtual chunk") {
  const Catalog c = read(fixture("megatron_llama_vpp_plain_adam/legacy"));
  CHECK(c.kind == "megatron");
  CHECK(c.iteration == 120);
  CHECK(c.spec_folder == "megatron");
  CHECK(c.mesh.pp == 2);
  CHECK(c.mesh.vp == 2);
  REQUIRE(c.ranks.size() == 4);
  CHECK(c.ranks[1].at == Coordinate{{"ep", 0}, {"etp", 0}, {"pp", 0}, {"tp", 0}, {"vp", 1}});
  CHECK(c.ranks[2].at == Coordinate{{"ep", 0}, {"etp", 0}, {"pp", 1}, {"tp", 0}, {"vp", 0}});
  CHECK(find(c.ranks[0], "fp32/embedding.word_embeddings.weight"));
  CHECK(find(c.ranks[3], "exp_avg/output_layer.weight"));
  CHECK(find(c.ranks[3], "step/decoder.layers.0.mlp.linear_fc1.weight"));
  CHECK(!find(c.ranks[2], "fp32/output_layer.weight"));
  CHECK(fact(c, "stages") == "1+1, 1+1 layers");
  CHECK(fact(c, "optimizer") == "mixed precision, not distributed");
  CHECK(fact(c, "num_floating_point_operations_so_far") == "123456789012345");
  CHECK(!c.refusal);
}

TEST_CASE("megatron: dense states that one expert rank saved are all ranks'") {
  const Catalog c = read(fixture("megatron_moe_ep/legacy"));
  REQUIRE(c.ranks.size() == 2);
  const std::string router = "fp32/decoder.layers.0.mlp.router.weight";
  const Tensor *first = find(c.ranks[0], router), *second = find(c.ranks[1], router);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->pieces.first == second->pieces.first);  // the same bytes
  REQUIRE(second->copies.size() == 1);
  CHECK(first->copies[0].pieces.first != second->copies[0].pieces.first);  // of the weight each has its own
  CHECK(c.pieces[second->copies[0].pieces.first].file != c.pieces[first->copies[0].pieces.first].file);
  const std::string expert = "exp_avg/decoder.layers.1.mlp.experts.local_experts.1.linear_fc2.weight";
  CHECK(find(c.ranks[0], expert)->pieces.first != find(c.ranks[1], expert)->pieces.first);
  CHECK(fact(c, "optimizer") == "distributed, 2 optimizers");
}

TEST_CASE("megatron: weights alone") {
  const Catalog c = read(fixture("megatron_llama_uneven_stages/legacy"));
  CHECK(!c.refusal);
  CHECK(find(c.ranks[0], "param/embedding.word_embeddings.weight"));
  CHECK(!find(c.ranks[0], "fp32/embedding.word_embeddings.weight"));
  CHECK(fact(c, "optimizer") == "none");
  CHECK(fact(c, "stages") == "1, 3 layers");
}

TEST_CASE("megatron: pickles are kept, and what they hold beside the model") {
  const Catalog c = read(fixture("megatron_llama_tp_pp/legacy"));
  REQUIRE(c.objects.size() == 8);
  CHECK(c.objects[0].origin == "mp_rank_00_000/model_optim_rng.pt");
  CHECK(c.objects[1].origin == "mp_rank_00_000/distrib_optim.pt");
  const auto view = nlohmann::json::parse(c.objects[0].json);
  CHECK(view["iteration"] == 120);
  CHECK(view["optimizer"]["optimizer"]["param_groups"][1]["wd_mult"] == 0.0);
  CHECK(!c.tensors.empty());
  for (const Tensor& t : c.tensors) CHECK(t.state == state::kOther);
}

TEST_CASE("megatron: damaged folders") {
  {
    const Scratch s("megatron_llama_tp_pp");
    s.remove("iter_0000120/mp_rank_01_001");
    CHECK(refusal_of(s) ==
          "megatron.missing_files iter_0000120: mp_rank_01_001 is missing (mp_rank_00_000, mp_rank_01_000, "
          "mp_rank_00_001 are here)");
  }
  {
    const Scratch s("megatron_llama_tp_pp");
    s.remove("iter_0000120/mp_rank_01_001/distrib_optim.pt");
    CHECK(refusal_of(s).starts_with(
        "megatron.missing_files iter_0000120: mp_rank_01_001/distrib_optim.pt is missing"));
  }
  {
    const Scratch s("megatron_llama_tp_pp");
    s.truncate("iter_0000120/mp_rank_01_001/distrib_optim.pt");
    CHECK(refusal_of(s).starts_with("zip."));
    s.truncate("iter_0000120/mp_rank_01_000/model_optim_rng.pt");
    CHECK(refusal_of(s).starts_with("zip."));
  }
  {
    const Scratch s("megatron_llama_tp_pp");
    for (const char* rank : {"00_000", "00_001", "01_000", "01_001"})
      s.truncate(cat("iter_0000120/mp_rank_", rank, "/model_optim_rng.pt"));
    CHECK(thrown_by(s).starts_with("zip."));
  }
  {
    const Scratch s;
    s.folder("iter_0000001/mp_rank_00");
    CHECK(thrown_by(s) ==
          "megatron.missing_files iter_0000001: expected model_optim_rng.pt in the mp_rank_* folders, "
          "found none");
  }
}
