#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "lib/base/text.h"
#include "lib/formats/hugging_face/index.h"
#include "lib/formats/safetensors/header.h"
#include "lib/formats/safetensors/safetensors_format.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {

Bytes file_bytes(std::string_view header, size_t data_bytes) {
  Bytes out(8 + header.size() + data_bytes);
  store_le<uint64_t>(out.data(), header.size());
  std::ranges::copy(header, out.begin() + 8);
  for (size_t i = 0; i < data_bytes; ++i) out[8 + header.size() + i] = static_cast<uint8_t>(i);
  return out;
}

safetensors::Header header_of(Bytes bytes) {
  return safetensors::read_header(MemorySource("t", std::move(bytes)));
}

// The error's code, or "" if the file is accepted.
std::string verdict(Bytes bytes) {
  try {
    header_of(std::move(bytes));
    return "";
  } catch (const Error& e) {
    CHECK(e.exit_code() == 1);
    CHECK(e.file() == "t");
    return e.code();
  }
}
std::string verdict(std::string_view header, size_t data_bytes) {
  return verdict(file_bytes(header, data_bytes));
}

class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "uckpt-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() { fs::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  void write(const std::string& name, std::string_view text) const {
    std::ofstream(fs::path(path_) / name, std::ios::binary) << text;
  }
  void write(const std::string& name, const Bytes& bytes) const {
    write(name, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  const std::string& path() const { return path_; }
  void make_folder(const std::string& name) const { fs::create_directories(fs::path(path_) / name); }
  void link(const std::string& name, const std::string& to) const {
    fs::create_symlink(to, fs::path(path_) / name);
  }
  void remove(const std::string& name) const { fs::remove_all(fs::path(path_) / name); }
  Catalog read(const std::string& name = "") const {
    Target target;
    target.path = name.empty() ? path_ : path_ + "/" + name;
    if (name.empty()) {
      target.folder = std::make_unique<InputFolder>(path_);
      target.entries = target.folder->list();
    } else {
      target.file = InputFile::open(target.path);
      target.head = target.file->read_range(0, std::min<int64_t>(512, target.file->size()));
    }
    REQUIRE(safetensors::recognises(target));
    return safetensors::read(target, {});
  }
  std::string code(const std::string& name = "") const {
    try {
      read(name);
      return "";
    } catch (const Error& e) {
      CHECK(e.exit_code() == 1);
      return e.code();
    }
  }

 private:
  std::string path_;
};

constexpr std::string_view kOne = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})";

}  // namespace

TEST_CASE("safetensors: a header becomes entries in the order of their bytes") {
  const safetensors::Header h = header_of(file_bytes(
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"U8","shape":[],"data_offsets":[8,9]},)"
      R"("y":{"data_offsets":[0,8],"shape":[2,2],"dtype":"BF16"},"e":{"dtype":"F64","shape":[0,3],"data_offsets":[0,0]}}  )",
      9));
  REQUIRE(h.entries.size() == 3);
  CHECK(h.entries[0].name == "e");
  CHECK(h.entries[1].name == "y");
  CHECK(h.entries[1].dtype == DType::kBF16);
  CHECK(h.entries[1].shape == Shape{2, 2});
  CHECK(h.entries[2].name == "z");
  CHECK(h.entries[2].begin == 8);
  CHECK(*h.metadata_value("format") == "pt");
  CHECK(h.metadata_value("note") == nullptr);
  CHECK(
      header_of(file_bytes(R"({"__metadata__":null,"z":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", 1))
          .entries.size() == 1);  // as the reference reads it
}

TEST_CASE("safetensors: what the reference reader accepts") {
  CHECK(verdict(kOne, 8) == "");
  CHECK(verdict("{}", 0) == "");
  CHECK(verdict("{}      ", 0) == "");
  CHECK(verdict(cat("   ", kOne), 8) == "");
  CHECK(
      verdict(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":{"x":[1.5,null,{}],"y":-1}}})",
              8) == "");
  CHECK(verdict(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}})", 2) == "");
  CHECK(verdict(R"({"a":{"dtype":"F6_E2M3","shape":[2,2],"data_offsets":[0,3]}})", 3) == "");
  CHECK(verdict(R"({"":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 1) == "");
}

TEST_CASE("safetensors: what is refused, and under which code") {
  struct Case {
    std::string_view code, header;
    size_t data_bytes;
  };
  const Case cases[] = {
      {"safetensors.header", "", 8},
      {"safetensors.header", "      ", 8},
      {"safetensors.header", "[1, 2]", 8},
      {"safetensors.header", "hello wo", 8},
      {"safetensors.header", "\xEF\xBB\xBF{}", 0},
      {"safetensors.header", std::string_view("{}\0\0", 4), 0},
      {"json.syntax", std::string_view("{}\0}", 4), 0},
      {"safetensors.header", "{}\n", 0},
      {"json.syntax", "{\"a\":}", 0},
      {"json.syntax", "{} {}", 0},
      {"json.syntax", R"({"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1},
      {"json.utf8", "{\"\xff\xfe\":1}", 0},
      {"json.duplicate",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1},
      {"json.duplicate", R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1},
      {"json.duplicate", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":{"k":1,"k":1}}})", 1},
      {"json.depth", R"({"a":{"x":[[[[[[[1]]]]]]]}})", 0},
      {"safetensors.field", R"({"a":1})", 0},
      {"safetensors.field", R"({"a":[]})", 0},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[1]}})", 1},
      {"safetensors.field", R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.0]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e0]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", 1},
      {"safetensors.field", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1},
      {"safetensors.metadata", R"({"__metadata__":{"k":1}})", 0},
      {"safetensors.metadata", R"({"__metadata__":{"k":{}}})", 0},
      {"safetensors.field", R"({"__metadata__":3})", 0},
      {"safetensors.dtype", R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,1]}})", 1},
      {"safetensors.offsets", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8},
      {"safetensors.shape", R"({"a":{"dtype":"F32","shape":[9223372036854775808,4],"data_offsets":[0,8]}})",
       8},
      {"safetensors.shape", R"({"a":{"dtype":"F32","shape":[9223372036854775808,0],"data_offsets":[0,0]}})",
       0},
      {"safetensors.shape", R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2},
      {"safetensors.size", R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8},
      {"safetensors.hole", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2},
      {"safetensors.hole",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3},
      {"safetensors.overlap",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3},
      {"safetensors.trailing", kOne, 9},
      {"safetensors.truncated", kOne, 7},
  };
  for (const Case& c : cases) {
    CAPTURE(c.header);
    CHECK(verdict(c.header, c.data_bytes) == c.code);
  }
}

TEST_CASE("safetensors: the length field is believed last") {
  CHECK(verdict(Bytes{}) == "safetensors.truncated");
  CHECK(verdict(Bytes(7)) == "safetensors.truncated");
  for (uint64_t length : {uint64_t{63}, uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}}) {
    Bytes bytes = file_bytes(kOne, 0);
    store_le<uint64_t>(bytes.data(), length);
    CHECK(verdict(bytes) == "safetensors.header_size");
  }
}

TEST_CASE("safetensors: every prefix of a good file is refused") {
  const Bytes whole = file_bytes(kOne, 8);
  for (size_t n = 0; n < whole.size(); ++n) {
    CHECK(verdict(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))) != "");
  }
}

TEST_CASE("safetensors: 50,000 nested lists cost nothing") {
  const std::string deep = cat("{\"a\":{\"x\":", std::string(50'000, '['), std::string(50'000, ']'), "}}");
  CHECK(verdict(deep, 0) == "json.depth");
}

TEST_CASE("safetensors: messages name file, tensor, expected and found") {
  const auto line = [](std::string_view header, size_t n) -> std::string {
    try {
      header_of(file_bytes(header, n));
    } catch (const Error& e) {
      return e.line();
    }
    return "";
  };
  CHECK(line(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8) ==
        "t::w: shape and dtype make 12 bytes, data_offsets [0, 8] hold 8");
  CHECK(line(R"({"w":{"dtype":"F32","shape":["3"],"data_offsets":[0,8]}})", 8) ==
        "t::w: field `shape`: expected a list of non-negative integers, found a string");
  CHECK(line(R"({"w":{"dtype":"F128"}})", 8) == "t::w: field `shape` is missing");
}

TEST_CASE("safetensors: one file becomes a catalog") {
  TempFolder dir;
  dir.write(
      "x.safetensors",
      file_bytes(
          R"({"__metadata__":{"format":"pt","note":"n"},"l.10":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
          R"("l.9":{"dtype":"F4","shape":[2,2],"data_offsets":[4,6]},"e":{"dtype":"F32","shape":[0],"data_offsets":[6,6]}})",
          6));
  const Catalog c = dir.read("x.safetensors");
  CHECK(c.kind == "safetensors");
  CHECK(c.description == "safetensors file");
  REQUIRE(c.tensors.size() == 3);
  CHECK(c.tensors[0].path() == "param/e");
  CHECK(c.tensors[0].pieces.count == 0);
  CHECK(c.tensors[1].path() == "param/l.9");
  CHECK(bytes_of(c.tensors[1]) == 2);
  CHECK(c.tensors[2].path() == "param/l.10");
  const Piece& p = c.pieces_of(c.tensors[2].pieces)[0];
  CHECK(c.files[p.file]->read_range(p.offset, 4) == Bytes{0, 1, 2, 3});
  REQUIRE(c.objects.size() == 1);
  CHECK(c.objects[0].json == R"({"__metadata__":{"format":"pt","note":"n"}})");
}

TEST_CASE("safetensors: a folder with an index") {
  TempFolder dir;
  const auto shard = [](std::string_view name) {
    return file_bytes(cat("{\"", name, R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})"), 1);
  };
  const std::string index = "model.safetensors.index.json";
  dir.write(index,
            R"({"metadata":{"total_size":1e3},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  dir.write("1.safetensors", shard("a"));
  CHECK(dir.code() == "safetensors.missing_shard");
  dir.write("2.safetensors", shard("c"));
  CHECK(dir.code() == "safetensors.missing_tensor");
  dir.write("2.safetensors", shard("a"));
  CHECK(dir.code() == "safetensors.duplicate");
  dir.write("2.safetensors", shard("b"));
  CHECK(dir.read().tensors.size() == 2);
  CHECK(dir.read(index).tensors.size() == 2);

  dir.write("config.json",
            R"({"model_type":"llama","architectures":["A","B"],"hidden_size":8,"x":{"y":[1]}})");
  const Catalog c = dir.read();
  CHECK(c.description == "Hugging Face model in 2 safetensors files");
  REQUIRE(c.facts.size() == 3);
  CHECK(c.facts[1] == std::pair<std::string, std::string>("architecture", "A, B"));
  CHECK(c.objects.back().origin == "config.json");
  CHECK(c.warnings.empty());

  dir.write("config.json", "{");
  dir.write("3.safetensors", shard("d"));
  CHECK(dir.read().warnings.size() == 2);
  CHECK(dir.read().objects.back().size == 1);

  dir.write(index, R"({"weight_map":{"a":"1.safetensors"}})");
  dir.write(
      "1.safetensors",
      file_bytes(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2));
  const Catalog extra = dir.read();
  CHECK(extra.tensors.size() == 2);
  CHECK(extra.warnings.front() == "1 tensor is in the files but not in the index: x");

  for (std::string_view bad :
       {R"({"weight_map":{"a":"../1.safetensors"}})", R"({"weight_map":{"a":"/1"}})",
        R"({"weight_map":{"a":".."}})", R"({"weight_map":{"a":""}})", R"({"weight_map":{"a":"1\u0000"}})"}) {
    dir.write(index, bad);
    CHECK(dir.code() == "name.escapes");
  }
  for (std::string_view bad : {R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":{}}})",
                               R"({"weight_map":[]})", R"({"weight_map":{"a":["1"]}})", "{}", "[]", "1"}) {
    dir.write(index, bad);
    CHECK(dir.code() == "safetensors.index");
  }
}

TEST_CASE("safetensors: a folder without an index") {
  TempFolder dir;
  dir.write("model.safetensors", file_bytes(kOne, 8));
  CHECK(dir.read().tensors.size() == 1);
  CHECK(dir.read().warnings.empty());
  dir.write("other.safetensors", file_bytes(kOne, 8));
  CHECK(dir.read().warnings.size() == 1);

  TempFolder two;
  two.write("a.safetensors", file_bytes(kOne, 8));
  CHECK(two.read().tensors.size() == 1);
  two.write("b.safetensors", file_bytes(kOne, 8));
  CHECK(two.code() == "safetensors.no_index");
}

TEST_CASE("safetensors: a Hugging Face cache") {
  TempFolder dir;
  for (const char* sub : {"blobs", "refs", "snapshots/abc", "snapshots/def"}) dir.make_folder(sub);
  dir.write("blobs/1", file_bytes(kOne, 8));
  dir.link("snapshots/abc/model.safetensors", "../../blobs/1");
  CHECK(dir.code() == "safetensors.ambiguous");
  dir.write("refs/main", "abc\n");
  CHECK(dir.read().tensors.size() == 1);
  dir.write("refs/main", "../..");
  CHECK(dir.code() == "safetensors.ambiguous");
  dir.remove("snapshots/def");
  CHECK(dir.read().tensors.size() == 1);
  TempFolder elsewhere;
  elsewhere.write("1", file_bytes(kOne, 8));
  dir.remove("snapshots/abc/model.safetensors");
  dir.link("snapshots/abc/model.safetensors", elsewhere.path() + "/1");
  CHECK(dir.code() == "name.escapes");
}

TEST_CASE("safetensors: shards of a DCP save are shown, not converted") {
  TempFolder dir;
  const std::string name = "shard-00001-model-00001-of-00001.safetensors";
  dir.write(
      name,
      file_bytes(
          R"({"__metadata__":{"DCP_SHARDING_INFO":"{}"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
          1));
  const Catalog c = dir.read(name);
  REQUIRE(c.refusal.has_value());
  CHECK(c.refusal->code() == "safetensors.sharded");
  CHECK(dir.read().refusal->code() == "safetensors.sharded");
}
