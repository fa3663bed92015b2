// PyTorch distributed checkpoints: tiling, names, placement, and folders that were tampered with.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/dcp_format.h"
#include "lib/formats/dcp/items.h"
#include "lib/formats/dcp/metadata.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/tiling.h"

using namespace uckpt;
using namespace uckpt::dcp;
namespace fs = std::filesystem;

namespace {

std::string data(const std::string& name) { return std::string(UCKPT_TEST_DATA) + "/" + name; }

template <class Step>
std::string code_of(const Step& step) {
  try {
    step();
    return "";
  } catch (const Error& e) {
    CHECK_MESSAGE(e.exit_code() == 1, e.line());
    return e.code();
  }
}

Chunk chunk(Shape offsets, Shape sizes) {
  Chunk out;
  out.offsets = std::move(offsets);
  out.sizes = std::move(sizes);
  return out;
}

std::string tiling(const Shape& shape, const std::vector<Chunk>& chunks) {
  return code_of([&] { check_tiling(shape, chunks); });
}

// The same by counting every element.
std::string counted(const Shape& shape, const std::vector<Chunk>& chunks) {
  Shape element(shape.size(), 0);
  for (int64_t n = numel_of(shape); n > 0; --n) {
    size_t in = 0;
    for (const Chunk& c : chunks) {
      bool inside = true;
      for (size_t d = 0; d < shape.size(); ++d)
        inside &= element[d] >= c.offsets[d] && element[d] < c.offsets[d] + c.sizes[d];
      in += inside;
    }
    if (in != 1) return in == 0 ? "dcp.hole" : "dcp.overlap";
    for (size_t d = shape.size(); d-- > 0;) {
      if (++element[d] < shape[d]) break;
      element[d] = 0;
    }
  }
  return "";
}

// Cuts a box again and again at random places.
void cut(std::mt19937& random, Chunk box, int times, std::vector<Chunk>& out) {
  const size_t d = random() % box.sizes.size();
  if (times == 0 || box.sizes[d] < 2) {
    out.push_back(std::move(box));
    return;
  }
  const auto first = static_cast<int64_t>(1 + random() % static_cast<uint64_t>(box.sizes[d] - 1));
  Chunk other = box;
  other.offsets[d] += first;
  other.sizes[d] -= first;
  box.sizes[d] = first;
  cut(random, std::move(box), times - 1, out);
  cut(random, std::move(other), times - 1, out);
}

class TempFolder {
 public:
  explicit TempFolder(const std::string& from) {
    std::string name = (fs::temp_directory_path() / "uckpt-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    fs::copy(from, path, fs::copy_options::recursive);
  }
  ~TempFolder() { fs::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  Bytes bytes(const std::string& name) const {
    std::ifstream in(path + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  void write(const std::string& name, const Bytes& all) const {
    std::ofstream(path + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
  }
  std::string path;
};

Target target_of(const std::string& path) {
  Target target;
  target.path = path;
  target.folder = std::make_unique<InputFolder>(path);
  target.entries = target.folder->list();
  return target;
}

std::string verdict(const std::string& path) {
  return code_of([&] {
    const Target target = target_of(path);
    CHECK(recognises(target));
    const Catalog catalog = read(target, {});
    if (catalog.refusal) throw Error(*catalog.refusal);
  });
}

StoredTensor tensor(std::string key, Shape shape, std::vector<Chunk> chunks = {}) {
  StoredTensor out;
  out.key = std::move(key);
  out.dtype = DType::kF32;
  out.shape = std::move(shape);
  out.chunks = std::move(chunks);
  return out;
}

// Of keys with their paths; a path of one part is a key of its own.
std::vector<std::string> named(const std::vector<std::pair<KeyPath, Shape>>& list,
                               const std::map<std::string, std::vector<std::string>>& lists = {},
                               bool with_paths = true) {
  Stored stored;
  const auto key_of = [](const KeyPath& path) {
    std::string key;
    for (const KeyPart& p : path) key += cat(key.empty() ? "" : ".", p.text);
    return key;
  };
  for (const auto& [path, shape] : list) {
    if (with_paths) stored.paths[key_of(path)] = path;
    stored.tensors.push_back(tensor(key_of(path), shape));
  }
  for (const auto& [key, values] : lists) stored.bytes.push_back({key, {}, "", {}});
  std::vector<std::string> warnings, out;
  const auto read_list = [&](const std::string& key) -> std::optional<TextList> {
    const auto at = lists.find(key);
    if (at == lists.end()) return std::nullopt;
    const bool of_numbers = at->second.at(0).find_first_not_of("0123456789") == std::string::npos;
    return TextList{at->second, of_numbers};
  };
  for (const TensorName& n : name_tensors(stored, read_list, warnings)) out.push_back(n.state + "/" + n.name);
  for (const std::string& w : warnings) out.push_back("warning: " + w);
  return out;
}

KeyPath path(std::initializer_list<const char*> parts) {
  KeyPath out;
  for (const char* p : parts) out.push_back({p, false});
  return out;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("dcp: chunks tile a tensor, or an element is named") {
  CHECK(tiling({4, 6}, {chunk({0, 0}, {2, 6}), chunk({2, 0}, {2, 6})}).empty());
  CHECK(tiling({4, 6}, {chunk({0, 0}, {2, 6}), chunk({3, 0}, {1, 6})}) == "dcp.hole");
  CHECK(tiling({4, 6}, {chunk({0, 0}, {3, 6}), chunk({2, 0}, {2, 6})}) == "dcp.overlap");
  CHECK(tiling({}, {chunk({}, {})}).empty());
  CHECK(tiling({}, {}) == "dcp.hole");
  CHECK(tiling({}, {chunk({}, {}), chunk({}, {})}) == "dcp.overlap");
  CHECK(tiling({0, 5}, {}).empty());
  // As many elements as the tensor has, and yet no tiling.
  CHECK(tiling({2, 2}, {chunk({0, 0}, {1, 2}), chunk({0, 0}, {2, 1})}) == "dcp.overlap");
  const int64_t large = int64_t{1} << 40;
  CHECK(tiling({large, large >> 20},
               {chunk({0, 0}, {large - 1, large >> 20}), chunk({large - 1, 0}, {1, large >> 20})})
            .empty());
  try {
    check_tiling({4, 6}, std::vector{chunk({0, 0}, {2, 6}), chunk({2, 0}, {2, 5})});
    FAIL("a hole was taken");
  } catch (const Error& e) {
    CHECK(e.message() == "element [2, 5] of a tensor [4, 6] is in none of its 2 chunks");
  }
}

TEST_CASE("dcp: tiling agrees with counting elements, whatever is moved, doubled or lost") {
  std::mt19937 random(6);
  for (int round = 0; round < 600; ++round) {
    Shape shape;
    for (size_t d = 0, rank = 1 + random() % 3; d < rank; ++d)
      shape.push_back(1 + static_cast<int64_t>(random() % 6));
    std::vector<Chunk> chunks;
    cut(random, chunk(Shape(shape.size(), 0), shape), static_cast<int>(random() % 5), chunks);
    std::shuffle(chunks.begin(), chunks.end(), random);
    CHECK(tiling(shape, chunks).empty());
    const size_t at = random() % chunks.size(), d = random() % shape.size();
    switch (random() % 3) {
      case 0:
        chunks.erase(chunks.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 1:
        chunks.push_back(chunks[at]);
        break;
      default: {
        const int64_t room = shape[d] - chunks[at].sizes[d];
        chunks[at].offsets[d] = static_cast<int64_t>(random() % static_cast<uint64_t>(room + 1));
      }
    }
    // Where an overlap and a hole are both there, either may be named.
    CHECK(tiling(shape, chunks).empty() == counted(shape, chunks).empty());
  }
}

TEST_CASE("dcp: so many cut dims that telling would take too long are refused") {
  Shape shape(30, 2), sizes(30, 1), offsets(30, 0);
  CHECK(tiling(shape, {chunk(offsets, sizes)}) == "limit.cut_dims");
}

TEST_CASE("dcp: names of weights and of their optimizer states") {
  CHECK(named({{path({"model", "a.weight"}), {2}},
               {path({"optim", "state", "a.weight", "exp_avg"}), {2}},
               {path({"optim", "state", "a.weight", "step"}), {}},
               {path({"extra", "rng"}), {8}}}) ==
        Names{"param/a.weight", "exp_avg/a.weight", "step/a.weight", "other/extra.rng"});
  // Flattened, beside bare weights; one name is the beginning of another.
  CHECK(named({{path({"a"}), {2}},
               {path({"a.b"}), {2}},
               {path({"state.a.exp_avg"}), {2}},
               {path({"state.a.b.exp_avg"}), {2}},
               {path({"train", "rng"}), {8}}}) ==
        Names{"param/a", "param/a.b", "exp_avg/a", "exp_avg/a.b", "other/train.rng"});
  // A container with any name, known by the states that speak of it; wrappers in one of the two.
  CHECK(named({{path({"net", "_orig_mod.a"}), {2}},
               {path({"ema", "a2"}), {2}},
               {path({"opt", "state", "a", "momentum_buffer"}), {2}}}) ==
        Names{"param/_orig_mod.a", "other/ema.a2", "momentum_buffer/_orig_mod.a"});
  // Without paths a key stands for itself: `model.` may be part of a name.
  CHECK(named({{path({"model.embed.weight"}), {2}}}, {}, false) == Names{"param/model.embed.weight"});
  CHECK(named({{path({"model", "a"}), {2}}}) == Names{"param/a"});
  CHECK(named({{path({"encoder", "a"}), {2}}, {path({"decoder", "a"}), {2}}}) ==
        Names{"param/encoder.a", "param/decoder.a"});
  // Two models and two optimizers: names stay whole.
  CHECK(named({{path({"g", "a"}), {2}},
               {path({"d", "b"}), {2}},
               {path({"optim_g", "state", "a", "exp_avg"}), {2}},
               {path({"optim_d", "state", "b", "exp_avg"}), {2}}}) ==
        Names{"param/g.a", "param/d.b", "exp_avg/g.a", "exp_avg/d.b"});
  // Two of each, of the same names: those that lie together, or have the shapes of the states.
  CHECK(named({{path({"gen", "model", "a"}), {2}},
               {path({"gen", "optim", "state", "a", "exp_avg"}), {2}},
               {path({"disc", "model", "a"}), {2}},
               {path({"disc", "optim", "state", "a", "exp_avg"}), {2}}}) ==
        Names{"param/gen.model.a", "exp_avg/gen.model.a", "param/disc.model.a", "exp_avg/disc.model.a"});
  CHECK(
      named({{path({"d", "a"}), {2}}, {path({"g", "a"}), {3}}, {path({"optim", "state", "a", "mu"}), {3}}}) ==
      Names{"other/d.a", "param/a", "mu/a"});
  // An average of the weights has their names and shapes.
  const Names averaged = named(
      {{path({"net", "a"}), {2}}, {path({"ema", "a"}), {2}}, {path({"optim", "state", "a", "mu"}), {2}}});
  CHECK(averaged == Names{"param/a", "other/ema.a", "mu/a",
                          "warning: the optimizer `optim` speaks of weights that are in `net` and in `ema`: "
                          "taken for those of the first, which stand before the others"});
  // All of it in a container called `state`, and deep below; several models in a list.
  CHECK(named({{path({"state", "model", "a"}), {2}},
               {path({"state", "optimizers", "AdamW", "state", "a", "exp_avg"}), {2}}},
              {{"state.optimizers.AdamW.param_groups.0.params", {"a"}}}) == Names{"param/a", "exp_avg/a"});
  CHECK(named({{path({"a", "b", "c", "model", "w"}), {2}},
               {path({"a", "b", "c", "optim", "state", "w", "step"}), {}}}) == Names{"param/w", "step/w"});
  CHECK(named({{{{"model", false}, {"0", true}, {"a", false}}, {2}},
               {{{"model", false}, {"1", true}, {"b", false}}, {2}},
               {path({"optim", "state", "a", "mu"}), {2}},
               {path({"optim2", "state", "b", "mu"}), {2}}}) ==
        Names{"param/model.0.a", "param/model.1.b", "mu/model.0.a", "mu/model.1.b"});
  // A learning rate that is a tensor is no weight, though weights lie bare beside it.
  CHECK(named({{path({"a"}), {2}}, {path({"state.a.exp_avg"}), {2}}, {path({"param_groups.a.lr"}), {}}},
              {{"param_groups.a.betas", {"0", "1"}}}) ==
        Names{"param/a", "exp_avg/a", "other/param_groups.a.lr"});
  // A module called `state` is no optimizer.
  CHECK(named({{path({"model", "ssm.state.proj.weight"}), {2}}}) == Names{"param/ssm.state.proj.weight"});
  CHECK(named({{path({"ssm.state.proj.weight"}), {2}}}) == Names{"param/ssm.state.proj.weight"});
  // A path may be long: that takes no longer than reading it.
  const KeyPath path_of_many(100000, {"state", false});
  CHECK(named({{path({"model", "a"}), {2}}, {path_of_many, {2}}})[0] == "param/a");
  // What no group of the consolidated file can be called.
  CHECK(named({{path({"model", "a"}), {2}}, {path({"optim", "state", "a", "param"}), {2}}}) ==
        Names{"param/a", "other/optim.state.a.param"});
}

TEST_CASE("dcp: states that have numbers") {
  const std::vector<std::pair<KeyPath, Shape>> list = {{path({"model", "a"}), {2}},
                                                       {path({"model", "b"}), {3}},
                                                       {path({"optim", "state", "0", "exp_avg"}), {2}},
                                                       {path({"optim", "state", "1", "exp_avg"}), {3}},
                                                       {path({"optim", "state", "1", "step"}), {}}};
  const Names tied = {"param/a", "param/b", "exp_avg/a", "exp_avg/b", "step/b"};
  CHECK(named(list, {{"optim.param_groups.0.params", {"0", "1"}}}) == tied);
  CHECK(named(list, {{"optim.param_groups.0.params", {"1"}}, {"optim.param_groups.1.params", {"0"}}}) ==
        tied);
  CHECK(named(list, {{"optim.param_groups.0.params", {"0", "1"}},
                     {"optim.param_groups.0.param_names", {"b", "a"}}}) ==
        Names{"param/a", "param/b", "exp_avg/b", "exp_avg/a", "step/a"});
  // Nothing tells whose they are.
  auto alike = list;
  alike[1].second = {2};
  alike.push_back({path({"model", "frozen"}), {2}});
  alike[3].second = {2};
  CHECK(named(alike, {{"optim.param_groups.0.params", {"0", "1"}}}) ==
        Names{"param/a", "param/b", "other/optim.state.0.exp_avg", "other/optim.state.1.exp_avg",
              "other/optim.state.1.step", "param/frozen",
              "warning: the states of the optimizer `optim` have numbers, and nothing tells whose they are: "
              "kept under their keys; get_optimizer_state_dict of torch.distributed.checkpoint.state_dict "
              "saves names"});
  // Shapes that one weight only has tell, whatever the order was.
  CHECK(named(list, {{"optim.param_groups.0.params", {"1", "0"}}}) == tied);
  // The order of the model, which may not be the optimizer's, is said to be a guess.
  alike.pop_back();
  CHECK(named(alike, {{"optim.param_groups.0.params", {"0", "1"}}}) ==
        Names{"param/a", "param/b", "exp_avg/a", "exp_avg/b", "step/b",
              "warning: the states of the optimizer `optim` have numbers, not names, and shapes do not tell "
              "them apart: taken to be in the order of the model's parameters; get_optimizer_state_dict of "
              "torch.distributed.checkpoint.state_dict saves names"});
  // Numbers are no names, though something has them for names.
  auto beside = list;
  beside.push_back({{{"ema", false}, {"0", true}}, {2}});
  beside.push_back({path({"rng", "1"}), {3}});
  Names tied_beside = tied;
  tied_beside.insert(tied_beside.end(), {"other/ema.0", "other/rng.1"});
  CHECK(named(beside, {{"optim.param_groups.0.params", {"0", "1"}}}) == tied_beside);
  // Factored states have not their parameter's shape, but rows and columns of it.
  const Names factored = named({{path({"model", "a"}), {2}},
                                {path({"model", "b"}), {2, 3}},
                                {path({"optim", "state", "0", "exp_avg_sq_col"}), {3}},
                                {path({"optim", "state", "0", "exp_avg_sq_row"}), {2}},
                                {path({"optim", "state", "1", "exp_avg_sq"}), {2}}},
                               {{"optim.param_groups.0.params", {"0", "1"}}});
  CHECK(factored == Names{"param/a", "param/b", "exp_avg_sq_col/b", "exp_avg_sq_row/b", "exp_avg_sq/a"});
}

TEST_CASE("dcp: placement as far as chunks tell it") {
  const StoredTensor rows =
      tensor("r", {13, 4},
             {chunk({0, 0}, {4, 4}), chunk({4, 0}, {4, 4}), chunk({8, 0}, {4, 4}), chunk({12, 0}, {1, 4})});
  const StoredTensor grid =
      tensor("g", {4, 6},
             {chunk({0, 0}, {2, 3}), chunk({0, 3}, {2, 3}), chunk({2, 0}, {2, 3}), chunk({2, 3}, {2, 3})});
  const StoredTensor odd =
      tensor("o", {2, 2}, {chunk({0, 0}, {1, 2}), chunk({1, 0}, {1, 1}), chunk({1, 1}, {1, 1})});
  CHECK(layout_text(rows) == "dim 0 in 4: 4, 4, 4, 1");
  CHECK(layout_text(grid) == "dims 0, 1 in 2 x 2");
  CHECK(layout_text(odd) == "3 chunks");
  CHECK(layout_text(tensor("w", {3}, {chunk({0}, {3})})) == "whole");
  Stored stored;
  stored.files = {"__0_0.distcp", "__1_0.distcp", "__2_0.distcp", "__3_0.distcp", "a/__4_0.distcp"};
  stored.tensors = {rows, rows, odd, tensor("w", {3}, {chunk({0}, {3})})};
  const auto facts = placement_facts(stored);
  REQUIRE(facts.size() == 3);
  CHECK(facts[0].second == "2 tensors: dim 0 in 4 (2 unevenly); 1 tensor: no grid; 1 tensor: whole");
  CHECK(facts[1].second == "4 ranks hold different parts");
  CHECK(facts[2].second == "12, in 5 data files of 5 ranks");
  stored.tensors.push_back(grid);
  CHECK(placement_facts(stored)[1].second == "2 x 2: tensors are cut along two dims");
}

TEST_CASE("dcp: `.metadata` of a real save") {
  const auto file = InputFile::open(data("torch/dcp_fsdp2_adamw/ckpt/.metadata"));
  const Metadata m = read_metadata(*file, {}, true);
  CHECK(m.version == "1.0.0");
  CHECK(!m.refusal);
  CHECK(m.stored.files.size() == 4);
  CHECK(m.stored.paths.at("optim.state.layers.0.up.weight.exp_avg").size() == 4);
  const auto at = [&](std::string_view key) -> const StoredTensor& {
    return *std::ranges::find(m.stored.tensors, key, &StoredTensor::key);
  };
  CHECK(at("model.tiny").shape == Shape{3});
  CHECK(at("model.tiny").chunks.size() == 3);
  CHECK(at("model.tiny").empty_chunks == 1);
  CHECK(at("extra.zero_rows").shape == Shape{0, 5});
  CHECK(m.json.starts_with("{\"version\": \"1.0.0\""));
}

TEST_CASE("dcp: every beginning of `.metadata` is refused") {
  const TempFolder folder(data("hostile/dcp/good"));
  const Bytes whole = folder.bytes(".metadata");
  for (size_t n = 0; n < whole.size(); ++n) {
    folder.write(".metadata", Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)));
    CHECK_MESSAGE(!verdict(folder.path).empty(), n);
  }
  folder.write(".metadata", whole);
  CHECK(verdict(folder.path).empty());
}

TEST_CASE("dcp: any byte of `.metadata` changed is read or refused, and no more") {
  const TempFolder folder(data("hostile/dcp/good"));
  const Bytes whole = folder.bytes(".metadata");
  for (size_t n = 0; n < whole.size(); ++n) {
    for (const uint8_t change : {uint8_t{0x01}, uint8_t{0x80}}) {
      Bytes changed = whole;
      changed[n] ^= change;
      folder.write(".metadata", changed);
      try {
        const Target target = target_of(folder.path);
        (void)read(target, {});
      } catch (const Error& e) {
        CHECK_MESSAGE(e.exit_code() == 1, e.line());
      }
    }
  }
}

TEST_CASE("dcp: data files that were cut, emptied or lost") {
  const TempFolder folder(data("torch/dcp_safetensors_serialization/ckpt"));
  CHECK(verdict(folder.path).empty());
  const Bytes whole = folder.bytes("__1_0.distcp");
  for (size_t n = 0; n < whole.size(); n += 97) {
    folder.write("__1_0.distcp", Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)));
    CHECK_MESSAGE(!verdict(folder.path).empty(), n);
  }
  fs::remove(folder.path + "/__1_0.distcp");
  CHECK(verdict(folder.path) == "dcp.missing_files");
}

TEST_CASE("dcp: a file that ends with the item of an empty chunk is cut like any other") {
  const TempFolder folder(data("torch/dcp_fsdp2_adamw/ckpt"));
  CHECK(verdict(folder.path).empty());
  Bytes bytes = folder.bytes("__3_0.distcp");
  bytes.pop_back();
  folder.write("__3_0.distcp", bytes);
  CHECK(verdict(folder.path) == "dcp.range");
}

TEST_CASE("dcp: two items may not claim the same bytes") {
  const InputFolder folder(data("hostile/dcp/good"));
  const auto file = InputFile::open(data("hostile/dcp/good/.metadata"));
  Metadata m = read_metadata(*file, {}, false);
  REQUIRE(m.stored.tensors.size() == 1);
  REQUIRE(m.stored.tensors[0].chunks.size() == 2);
  const DataFiles files(folder, m.stored);
  CHECK(code_of([&] { open_chunks(files, m.stored, {}); }).empty());
  m.stored.tensors[0].chunks.item(1) = m.stored.tensors[0].chunks.item(0);
  CHECK(code_of([&] { open_chunks(files, m.stored, {}); }) == "dcp.shared_bytes");
}

TEST_CASE("dcp: shards of the Hugging Face writer") {
  const TempFolder folder(data("torch/dcp_hf_writer_sharded/ckpt"));
  CHECK(verdict(folder.path).empty());
  SUBCASE("a rank's file is missing") {
    fs::remove(folder.path + "/shard-00002-model-00001-of-00002.safetensors");
    CHECK(verdict(folder.path) == "dcp.missing_files");
  }
  SUBCASE("the last rank's file is missing: no hole, but other parts than so many ranks make") {
    fs::remove(folder.path + "/shard-00004-model-00002-of-00002.safetensors");
    CHECK(verdict(folder.path) == "dcp.missing_files");
  }
  SUBCASE("a stranger is left out, and said") {
    folder.write("random.pt", {1, 2, 3});
    const Catalog catalog = read(target_of(folder.path), {});
    CHECK(catalog.warnings.front() == "random.pt is not part of this checkpoint: not read");
  }
  SUBCASE("a rank is missing") {
    fs::remove(folder.path + "/shard-00002-model-00001-of-00002.safetensors");
    fs::remove(folder.path + "/shard-00002-model-00002-of-00002.safetensors");
    CHECK(verdict(folder.path) == "dcp.missing_files");
  }
  SUBCASE("a file does not say where its boxes lie") {
    Bytes bytes = folder.bytes("shard-00001-model-00001-of-00002.safetensors");
    constexpr std::string_view kWord = "DCP_SHARDING_INFO";
    const auto at = std::search(bytes.begin(), bytes.end(), kWord.begin(), kWord.end());
    *at = 'X';
    folder.write("shard-00001-model-00001-of-00002.safetensors", bytes);
    CHECK(verdict(folder.path) == "dcp.sharding_info");
  }
}
