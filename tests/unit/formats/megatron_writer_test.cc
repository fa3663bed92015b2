// Which ranks and files a target has, and the order of its parameters.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/formats/megatron/write/module_order.h"
#include "lib/formats/megatron/write/target_mesh.h"

using namespace uckpt;
using namespace uckpt::megatron;

namespace {

std::vector<std::string> folders(const TargetMesh& mesh) {
  std::vector<std::string> out;
  for (const RankFile& f : mesh.files) out.push_back(mesh.folder_of(f));
  return out;
}

std::string refusal(const AskedSizes& asked, const Catalog& source = {}) {
  try {
    (void)target_mesh(source, asked);
  } catch (const Error& e) {
    CHECK(e.code() == "usage.layout");
    return e.message();
  }
  return "";
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("folders of Megatron's ranks have the numbers that tell them apart") {
  const Catalog source;
  CHECK(folders(target_mesh(source, {})) == Names{"mp_rank_00"});
  CHECK(folders(target_mesh(source, {{"tp", 2}})) == Names{"mp_rank_00", "mp_rank_01"});
  CHECK(folders(target_mesh(source, {{"pp", 2}})) == Names{"mp_rank_00_000", "mp_rank_00_001"});
  CHECK(folders(target_mesh(source, {{"ep", 2}})) == Names{"mp_rank_00_000", "mp_rank_00_001"});
  CHECK(folders(target_mesh(source, {{"tp", 2}, {"pp", 2}, {"ep", 2}})) ==
        Names{"mp_rank_00_000_000", "mp_rank_01_000_000", "mp_rank_00_000_001", "mp_rank_01_000_001",
              "mp_rank_00_001_000", "mp_rank_01_001_000", "mp_rank_00_001_001", "mp_rank_01_001_001"});
}

TEST_CASE("dense states lie with the first rank of each data parallel group") {
  const TargetMesh even = target_mesh({}, {{"tp", 2}, {"ep", 2}});
  CHECK(even.dp == 2);
  CHECK(even.etp == 2);
  for (const RankFile& f : even.files) {
    CHECK(f.etp == f.tp);
    CHECK(f.has_dense_states == (f.ep == 0));
    CHECK(f.has_expert_states);
  }
  // Experts that are whole: tp and ep are told by one and the same number of the rank.
  const TargetMesh whole = target_mesh({}, {{"tp", 2}, {"ep", 4}, {"etp", 1}});
  REQUIRE(whole.files.size() == 4);
  CHECK(folders(whole) ==
        std::vector<std::string>{"mp_rank_00_000", "mp_rank_01_001", "mp_rank_00_002", "mp_rank_01_003"});
  CHECK(whole.files[1].has_dense_states);
  CHECK_FALSE(whole.files[2].has_dense_states);
  CHECK(ranks({}, {{"tp", 2}, {"ep", 4}, {"etp", 1}})[1] ==
        Coordinate{{"tp", 1}, {"pp", 0}, {"vp", 0}, {"ep", 1}, {"etp", 0}});
}

TEST_CASE("a target keeps the world of its source where it can") {
  Catalog source;
  source.mesh = {.tp = 2, .pp = 2, .dp = 2, .ep = 1, .vp = 2, .etp = 2};
  source.arguments["world_size"] = 8;
  CHECK(target_mesh(source, {}).dp == 2);
  const TargetMesh one = target_mesh(source, {{"tp", 1}, {"pp", 4}});
  CHECK(one.dp == 2);
  CHECK(one.vp == 2);
  CHECK(one.etp == 1);
  CHECK(target_mesh(source, {{"tp", 3}, {"pp", 1}}).dp == 1);
  CHECK(target_mesh(source, {{"tp", 3}, {"pp", 1}}).vp == 1);
  CHECK(ranks(source, {}).size() == 8);
}

TEST_CASE("meshes that Megatron does not run are refused") {
  CHECK(refusal({{"vp", 2}}).starts_with("--layout vp: expected 1"));
  CHECK(refusal({{"etp", 2}}).starts_with("--layout etp: expected parts of experts"));
  CHECK(refusal({{"ep", 4}, {"dp", 2}}).starts_with("--layout dp: expected a multiple of 4"));
  CHECK(refusal({{"zero", 1}}).starts_with("--layout zero"));
  CHECK(refusal({{"tp", 0}}).starts_with("--layout tp: expected 1 to"));
  CHECK(refusal({{"tp", 1 << 15}, {"pp", 1 << 15}}).starts_with("--layout: expected at most"));
  Catalog source;
  source.mesh.tp = 1 << 30;
  CHECK(refusal({}, source).starts_with("--layout"));
}

TEST_CASE("names are in the order of the modules that state dicts show, whatever their numbers") {
  ModuleOrder order;
  for (const char* name :
       {"embedding.w", "decoder.layers.0.proj.weight", "decoder.layers.0.proj._extra_state",
        "decoder.layers.0.qkv.weight", "decoder.layers.0.qkv.bias", "decoder.layers.0.experts.weight0",
        "decoder.layers.1.proj.weight", "decoder.final.weight", "output.weight"})
    order.add(name);
  std::vector<std::string> names = {"output.weight",
                                    "decoder.final.weight",
                                    "decoder.layers.10.proj.weight",
                                    "decoder.layers.2.experts.weight10",
                                    "decoder.layers.2.experts.weight9",
                                    "decoder.layers.2.qkv.bias",
                                    "decoder.layers.2.qkv.weight",
                                    "embedding.w"};
  const std::vector<std::string> expected(names.rbegin(), names.rend());
  std::ranges::stable_sort(names, {}, [&](const std::string& n) { return order.key_of(n); });
  CHECK(names == expected);
  CHECK(order.knows("decoder.layers.77.qkv.bias"));
  CHECK_FALSE(order.knows("decoder.layers.0.norm.weight"));
  CHECK(order.extra_states() == std::set<std::string>{"decoder.layers.#.proj._extra_state"});
  CHECK(order.has_parameters("decoder.layers.#.qkv."));
  CHECK_FALSE(order.has_parameters("decoder.layers.#.attention."));
  std::vector<int64_t> numbers;
  CHECK(template_of("a.3.b12.4.", &numbers) == "a.#.b12.#.");
  CHECK(numbers == std::vector<int64_t>{3, 4});
}
