#include "lib/formats/hdf5/consolidated.h"
#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;

namespace {

Tensor tensor(std::string state, std::string name, Shape shape, DType dtype = DType::kF32) {
  Tensor made{};
  made.state = std::move(state);
  made.name = std::move(name);
  made.shape = std::move(shape);
  made.dtype = dtype;
  return made;
}

Catalog small_catalog() {
  Catalog catalog;
  catalog.kind = "deepspeed";
  catalog.iteration = 12;
  catalog.zero_stage = 2;
  catalog.mesh.dp = 4;
  catalog.tensors = {tensor("fp32", "w", {2, 3}), tensor("exp_avg", "w", {2, 3}),
                     tensor("param", "w", {2, 3}, DType::kBF16), tensor("param", "frozen", {5}, DType::kBF16),
                     tensor("fp32", "tied", {2, 3})};
  catalog.tensors[0].copies.push_back({{}, DType::kBF16, true, "module weight"});
  catalog.tensors[4].alias = 0;
  Object object{};
  object.origin = "a/b.pt";
  object.json = "{}";
  object.size = 9;
  catalog.objects = {object};
  return catalog;
}

}  // namespace

TEST_CASE("hdf5 consolidated: datasets, objects and attributes of a catalog") {
  const Catalog catalog = small_catalog();
  const std::vector<uint32_t> chosen = {0, 2, 3, 4};
  const hdf5::Consolidated file = hdf5::consolidated_skeleton(catalog, chosen, "uckpt 0.1.0", "ucl 1\n");
  CHECK(file.tensor_datasets == std::vector<size_t>{0, 1, 2, 3});
  CHECK(file.object_datasets == std::vector<size_t>{4});
  const auto& datasets = file.skeleton.datasets;
  REQUIRE(datasets.size() == 5);
  CHECK(datasets[0].group == "fp32");
  CHECK(datasets[0].module_dtype == DType::kBF16);
  CHECK(datasets[3].link_to == 0);
  CHECK(datasets[4].group == "objects/a%2fb.pt");
  CHECK(datasets[4].name == "pickle");
  CHECK(datasets[4].shape == Shape{9});
  REQUIRE(file.skeleton.texts.size() == 2);
  CHECK(file.skeleton.texts[0].text == "{}");
  CHECK(file.skeleton.texts[1].name == "layout");

  const TempFolder folder;
  hdf5::create_skeleton(folder.file("c.h5"), file.skeleton);
  const Catalog back = open_hdf5(folder.file("c.h5"));
  CHECK(back.tensors.size() == 4);
  CHECK(back.iteration == 12);
  CHECK(back.zero_stage == 2);
  CHECK(back.mesh.dp == 4);
  REQUIRE(back.objects.size() == 1);
  CHECK(back.objects[0].origin == "a/b.pt");
  CHECK(back.objects[0].json == "{}");
  // w once, although it is here twice, and frozen.
  CHECK(std::ranges::find(back.facts, std::pair<std::string, std::string>("parameters", "11")) !=
        back.facts.end());
}

TEST_CASE("hdf5 consolidated: settings and arguments come back, but not those of other names") {
  Catalog catalog = small_catalog();
  catalog.settings = {{"num_layers", int64_t{4}}, {"eps", 1e-05}, {"swiglu", true}};
  catalog.arguments = {{"num_layers", 4}, {"num_experts", 8}};
  const std::vector<uint32_t> chosen = {0};
  const TempFolder folder;
  hdf5::create_skeleton(folder.file("c.h5"), hdf5::consolidated_skeleton(catalog, chosen, "", "").skeleton);
  const Catalog back = open_hdf5(folder.file("c.h5"));
  CHECK(back.settings == catalog.settings);
  CHECK(back.arguments == catalog.arguments);
  catalog.settings_are = SettingsAre::kOfOldNames;
  hdf5::create_skeleton(folder.file("o.h5"), hdf5::consolidated_skeleton(catalog, chosen, "", "").skeleton);
  CHECK(open_hdf5(folder.file("o.h5")).settings.empty());
  CHECK(open_hdf5(folder.file("o.h5")).arguments == catalog.arguments);
}

TEST_CASE("hdf5 consolidated: an alias without its source is refused") {
  const Catalog catalog = small_catalog();
  const std::vector<uint32_t> only_alias = {4}, alias_first = {4, 0};
  CHECK(code_of([&] { hdf5::consolidated_skeleton(catalog, only_alias, "", ""); }) == "hdf5.alias");
  CHECK(code_of([&] { hdf5::consolidated_skeleton(catalog, alias_first, "", ""); }) == "hdf5.alias");
}

TEST_CASE("hdf5 consolidated: states from strangers cannot take the place of our own parts") {
  Catalog catalog = small_catalog();
  catalog.objects.clear();
  catalog.tensors = {tensor("layout", "w", {1}), tensor("objects", "x", {1}), tensor("digest", "w", {1}),
                     tensor("a/b", "w", {1}),    tensor("", "w", {1}),        tensor("settings", "w", {1})};
  const std::vector<uint32_t> all = {0, 1, 2, 3, 4, 5};
  const TempFolder folder;
  hdf5::create_skeleton(folder.file("s.h5"), hdf5::consolidated_skeleton(catalog, all, "", "").skeleton);
  const Catalog back = open_hdf5(folder.file("s.h5"));
  REQUIRE(back.tensors.size() == 6);
  for (const Tensor& stored : catalog.tensors) CHECK(find(back, stored.path()) != nullptr);
}

TEST_CASE("hdf5 consolidated: a newer or nameless version is refused, a lying mark is damage") {
  const TempFolder folder;
  const auto verdict = [&](const std::function<void(hdf5::Skeleton&)>& change) {
    hdf5::Skeleton skeleton;
    skeleton.text_attributes = {{"format", "universal-checkpoint"}};
    skeleton.int_attributes = {{"version", 1}};
    change(skeleton);
    fs::remove(folder.file("v.h5"));
    hdf5::create_skeleton(folder.file("v.h5"), skeleton);
    return code_of([&] { open_hdf5(folder.file("v.h5")); });
  };
  CHECK(verdict([](auto&) {}) == "");
  CHECK(verdict([](auto& s) { s.int_attributes = {{"version", 2}}; }) == "hdf5.version");
  CHECK(verdict([](auto& s) { s.int_attributes = {}; }) == "hdf5.damaged");
  CHECK(verdict([](auto& s) { s.int_attributes.emplace_back("tp", 0); }) == "hdf5.damaged");
  CHECK(verdict([](auto& s) { s.int_attributes.emplace_back("zero_stage", 9); }) == "hdf5.damaged");
}
