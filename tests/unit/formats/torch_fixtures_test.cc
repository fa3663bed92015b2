// Files by torch itself: every tensor bit for bit, every scalar in the JSON view.
#include <cmath>

#include "tests/unit/formats/torch_support.h"

using namespace torch_test;

namespace {

const Tensor* find(const Catalog& catalog, const std::string& name) {
  for (const Tensor& t : catalog.tensors)
    if (t.name == name) return &t;
  return nullptr;
}

void compare(const std::string& folder, const std::string& file,
             const std::map<std::string, Expected>& expected) {
  const std::string path = data("torch/" + folder + "/" + file);
  CAPTURE(path);
  const Catalog catalog = read_catalog(path);
  CHECK(!catalog.refusal);
  for (const auto& [key, want] : expected) {
    const auto& name = key;
    CAPTURE(name);
    // What safetensors could not spell was stored as pairs of floats.
    const std::string pairs = "#real_imag";
    const bool as_pairs = name.ends_with(pairs);
    const Tensor* tensor = find(catalog, as_pairs ? name.substr(0, name.size() - pairs.size()) : name);
    REQUIRE(tensor != nullptr);
    CHECK(tensor->refusal == "");
    if (!as_pairs) {
      CHECK(info(tensor->dtype).safetensors == want.dtype);
      CHECK(tensor->shape == want.shape);
    }
    CHECK(tensor_bytes(catalog, *tensor) == want.bytes);
  }
  CHECK(catalog.tensors.size() == expected.size());
}

// The value at a dotted path, where keys may hold dots themselves.
const nlohmann::json* at_path(const nlohmann::json& root, const std::string& path) {
  if (path.empty()) return &root;
  if (!root.is_structured()) return nullptr;
  for (size_t end = path.size();; end = path.rfind('.', end - 1)) {
    const std::string part = path.substr(0, end);
    const std::string rest = end < path.size() ? path.substr(end + 1) : "";
    const nlohmann::json* next = nullptr;
    if (root.is_object() && root.contains(part)) next = &root[part];
    if (root.is_array() && !part.empty() && part.find_first_not_of("0123456789") == std::string::npos &&
        std::stoul(part) < root.size())
      next = &root[std::stoul(part)];
    if (next)
      if (const auto* found = at_path(*next, rest)) return found;
    if (path.rfind('.', end - 1) == std::string::npos || end == 0) return nullptr;
  }
}

void compare_scalars(const std::string& folder, const std::string& file, const nlohmann::json& scalars) {
  const std::string path = data("torch/" + folder + "/" + file);
  CAPTURE(path);
  const auto torch_file = torch::TorchFile::open(InputFile::open(path));
  const std::string text = torch_file->json();
  const auto view = nlohmann::json::parse(text);
  for (const auto& [key, want] : scalars.items()) {
    const auto& name = key;
    CAPTURE(name);
    const nlohmann::json* found = at_path(view, name);
    REQUIRE(found != nullptr);
    if (!want.is_object()) CHECK(*found == want);  // objects tell a type or bytes of another reader
  }
}

}  // namespace

TEST_CASE("torch files: tensors bit for bit") {
  for (const std::string folder :
       {"pt_big_endian", "pt_dtypes", "pt_module_state", "pt_objects", "pt_shapes", "pt_views"}) {
    const auto expected = read_safetensors(data("torch/" + folder + "/expected.safetensors"));
    const auto about = read_json(data("torch/" + folder + "/expected.json"));
    for (const auto& file : about["files"]) compare(folder, file, expected);
  }
  compare("pt_repacked_zip", "unaligned_stored.pt",
          read_safetensors(data("torch/pt_repacked_zip/expected.safetensors")));
}

TEST_CASE("torch files: scalars in the JSON view") {
  for (const std::string folder : {"pt_objects", "pt_module_state"}) {
    const auto expected = read_json(data("torch/" + folder + "/expected.json"));
    for (const auto& file : expected["files"]) compare_scalars(folder, file, expected["scalars"]);
  }
}

TEST_CASE("torch files: integers and floats as they are in the view") {
  for (const char* file :
       {"zip.pt", "legacy_stream.pt", "zip_protocol3.pt", "zip_protocol4.pt", "zip_protocol5.pt"}) {
    const auto torch_file =
        torch::TorchFile::open(InputFile::open(data(std::string("torch/pt_objects/") + file)));
    const std::string text = torch_file->json();
    CHECK(text.find(",18446744073709551616,10000000000000000000000000000000000000000,-"
                    "10000000000000000000000000000000000000000]") != std::string::npos);
    CHECK(text.find("\"floats\":[0.0,-0.0,1e-300,3.14159,\"inf\"]") != std::string::npos);
    CHECK(text.find("\"dtype\":{\"__class__\":\"torch.dtype\",\"name\":\"torch.bfloat16\"}") !=
          std::string::npos);
    CHECK(text.find("\"device\":{\"__class__\":\"torch.device\",\"args\":[\"cpu\"]}") != std::string::npos);
    CHECK(text.find("\"layout\":{\"__class__\":\"torch.layout\",\"name\":\"torch.strided\"}") !=
          std::string::npos);
    CHECK(text.find("\"bytes\":{\"__bytes__\":\"0001ff0001ff0001ff0001ff0001ff\"}") != std::string::npos);
    CHECK(text.find("\"generator_state\":{\"__tensor__\":\"uint8\",\"shape\":[32]}") != std::string::npos);
    CHECK(text.find("\"np_f16\":{\"__ndarray__\":\"float16\",\"shape\":[3],\"values\":[1.0,1.0,1.0]}") !=
          std::string::npos);
    CHECK(torch_file->tree().find("namespace: argparse.Namespace") != std::string::npos);
  }
}

TEST_CASE("torch files: states, aliases, iteration") {
  const Catalog catalog = read_catalog(data("torch/pt_module_state/zip.pt"));
  CHECK(find(catalog, "model.0.weight")->path() == "param/model.0.weight");
  CHECK(find(catalog, "optimizer.state.0.exp_avg")->path() == "other/optimizer.state.0.exp_avg");
  CHECK(catalog.objects.size() == 1);
  CHECK(catalog.objects[0].origin == "zip.pt");
  CHECK(catalog.objects[0].size > 0);
  const Catalog objects = read_catalog(data("torch/pt_objects/zip.pt"));
  const Tensor* again = find(objects, "repeat.2.again");
  REQUIRE(again->alias);
  CHECK(objects.tensors[*again->alias].name == "repeat.0");
  CHECK(find(objects, "repeat.0")->state == "other");
  CHECK(find(objects, "int_keys.7.exp_avg")->state == "param");
  CHECK(objects.globals.at("argparse.Namespace") == GlobalClass::kKnown);
}

TEST_CASE("torch files: what cannot be converted is listed with its reason") {
  for (const char* file : {"zip.pt", "legacy_stream.pt", "zip_protocol4.pt"}) {
    const Catalog catalog = read_catalog(data(std::string("torch/pt_sparse_quantized/") + file));
    CHECK(!catalog.refusal);
    for (const char* name : {"coo", "csr", "per_tensor", "per_channel"}) {
      REQUIRE(find(catalog, name));
      CHECK(find(catalog, name)->refusal != "");
    }
    CHECK(find(catalog, "coo")->shape == Shape{3, 4});
    CHECK(find(catalog, "csr")->shape == Shape{2, 3});
    CHECK(find(catalog, "per_tensor")->shape == Shape{3, 4});
    CHECK(catalog.tensors.size() == 4);
  }
}

TEST_CASE("torch files: damaged ones are refused") {
  const auto code = [](const std::string& name) -> std::string {
    try {
      torch::TorchFile::open(InputFile::open(data(name)));
    } catch (const Error& e) {
      CHECK(e.exit_code() == 1);
      return e.code();
    }
    return "no error";
  };
  CHECK(code("torch/pt_damaged/empty.pt") == "torch.format");
  CHECK(code("torch/pt_damaged/truncated.pt") == "zip.end");
  CHECK(code("torch/pt_damaged/not_a_checkpoint.pt") == "torch.format");
  CHECK(code("torch/pt_damaged/huge_legacy_length.pt") != "no error");
  CHECK(code("torch/pt_damaged/flipped_byte.pt") == "zip.local");
  CHECK(code("torch/pt_repacked_zip/deflated.pt") == "zip.compressed");
}

TEST_CASE("torch files: every prefix is an error") {
  for (const char* name :
       {"torch/pt_shapes/zip.pt", "torch/pt_shapes/legacy_stream.pt", "torch/pt_shapes/zip_protocol4.pt"}) {
    const Bytes whole = file_bytes(data(name));
    torch::TorchFile::open(std::make_shared<MemorySource>("whole", whole));
    for (size_t size = 0; size < whole.size(); ++size) {
      const auto part = std::make_shared<MemorySource>(
          "part", Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)));
      CHECK_THROWS_AS(torch::TorchFile::open(part), Error);
    }
  }
}

TEST_CASE("torch files: no single changed byte of the structure crashes the reader") {
  for (const char* name :
       {"torch/pt_shapes/zip.pt", "torch/pt_shapes/legacy_stream.pt", "torch/pt_objects/zip_protocol5.pt"}) {
    const Bytes whole = file_bytes(data(name));
    for (size_t at = 0; at < whole.size(); at += 3) {
      Bytes changed = whole;
      changed[at] ^= static_cast<uint8_t>(1u << (at % 8));
      try {
        const auto file =
            torch::TorchFile::open(std::make_shared<MemorySource>("changed", std::move(changed)));
        file->json();
      } catch (const Error&) {
      }
    }
  }
}
