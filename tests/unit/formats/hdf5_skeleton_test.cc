#include "lib/base/checked.h"
#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;
using hdf5::Dataset;
using hdf5::Placement;
using hdf5::Skeleton;

namespace {

// Attributes that make the reader take it for a consolidated file.
Skeleton empty_skeleton() {
  Skeleton skeleton;
  skeleton.text_attributes = {{"format", "universal-checkpoint"}, {"source_kind", "deepspeed"}};
  skeleton.int_attributes = {{"version", 1}, {"iteration", 7}, {"tp", 2}, {"zero_stage", 3}};
  return skeleton;
}

Bytes contents(const Dataset& dataset, size_t index) {
  const int64_t numel = *checked_product(dataset.shape);
  Bytes bytes = pattern(static_cast<size_t>(*bytes_of(dataset.dtype, numel)), static_cast<unsigned>(index));
  if (dataset.dtype == DType::kBool)
    for (uint8_t& b : bytes) b &= 1;
  return bytes;
}

// Writes the skeleton and fills it as the executor would.
Placement write(const std::string& path, const Skeleton& skeleton) {
  const Placement placement = hdf5::create_skeleton(path, skeleton);
  REQUIRE(placement.offsets.size() == skeleton.datasets.size());
  REQUIRE(placement.file_size == static_cast<int64_t>(fs::file_size(path)));
  for (size_t i = 0; i < skeleton.datasets.size(); ++i) {
    if (placement.offsets[i] < 0) continue;
    const Bytes bytes = contents(skeleton.datasets[i], i);
    REQUIRE(range_inside(placement.offsets[i], static_cast<int64_t>(bytes.size()), placement.file_size));
    overwrite(path, placement.offsets[i], bytes);
  }
  return placement;
}

void check_same(const Catalog& catalog, const Skeleton& skeleton) {
  REQUIRE(catalog.tensors.size() == skeleton.datasets.size());
  for (size_t i = 0; i < skeleton.datasets.size(); ++i) {
    const Dataset& dataset = skeleton.datasets[i];
    const Tensor& tensor = at(catalog, cat(dataset.group, "/", dataset.name));
    CAPTURE(tensor.path());
    CHECK(tensor.refusal == "");
    CHECK(tensor.dtype == dataset.dtype);
    CHECK(tensor.shape == dataset.shape);
    CHECK(tensor.module_dtype == dataset.module_dtype);
    CHECK(bytes_of_tensor(catalog, tensor) == contents(dataset, i));
  }
}

}  // namespace

TEST_CASE("hdf5 skeleton: every element type in many shapes comes back") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  const std::vector<Shape> shapes = {{},        {1},       {8},    {0},          {0, 4},
                                     {4, 0, 3}, {2, 3, 4}, {3, 8}, Shape(32, 1), {40'000}};
  for (int d = 0; d < kDTypeCount; ++d) {
    const auto dtype = static_cast<DType>(d);
    for (size_t s = 0; s < shapes.size(); ++s)
      if (bytes_of(dtype, *checked_product(shapes[s])))
        skeleton.datasets.push_back({"fp32", cat(name_of(dtype), ".", s), dtype, shapes[s], {}, {}});
  }
  const std::string path = folder.file("types.h5");
  write(path, skeleton);
  check_same(open_hdf5(path), skeleton);
}

TEST_CASE("hdf5 skeleton: odd names come back") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  const std::vector<std::string> names = {"",
                                          ".",
                                          "..",
                                          "/",
                                          "/etc/passwd",
                                          "../../up",
                                          "a/b",
                                          "a",
                                          "a%2fb",
                                          "%",
                                          "%%",
                                          "100%",
                                          "%4",
                                          std::string("nul\0nul", 7),
                                          std::string(1, '\0'),
                                          "\x01\x1f\x7f\n",
                                          "größe.模型",
                                          "lone \xed\xa0\x80 surrogate",
                                          "\xff\xfe",
                                          std::string(300, 'x'),
                                          std::string(4000, 'y'),
                                          "layer.0.weight"};
  for (const std::string& name : names) {
    CHECK(hdf5::unescape_name(hdf5::escape_name(name)) == name);
    CHECK(valid_utf8(hdf5::escape_name(name)));
    skeleton.datasets.push_back({"param", name, DType::kF32, {2}, {}, {}});
  }
  const std::string path = folder.file("names.h5");
  write(path, skeleton);
  check_same(open_hdf5(path), skeleton);
}

TEST_CASE("hdf5 skeleton: links are tied tensors, marks and facts come back") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  skeleton.datasets = {{"fp32", "embed", DType::kF32, {4, 4}, DType::kBF16, {}},
                       {"fp32", "head", DType::kF32, {4, 4}, DType::kBF16, 0},
                       {"param", "gone/strange", DType::kBF16, {3}, {}, {}},
                       {"buffer", "also", DType::kBF16, {3}, {}, 2}};
  const std::string path = folder.file("links.h5");
  const Placement placement = write(path, skeleton);
  CHECK(placement.offsets[1] == -1);
  CHECK(placement.digest_offsets[1] == -1);

  const Catalog catalog = open_hdf5(path);
  CHECK(catalog.kind == "hdf5");
  CHECK(catalog.iteration == 7);
  CHECK(catalog.zero_stage == 3);
  CHECK(catalog.mesh.tp == 2);
  CHECK(catalog.mesh.dp == 1);
  const Tensor& head = at(catalog, "fp32/head");
  REQUIRE(head.alias.has_value());
  CHECK(catalog.tensors[*head.alias].name == "embed");
  CHECK(head.module_dtype == DType::kBF16);
  // Which of two names is the source is not recorded: the first in natural order is.
  CHECK(at(catalog, "buffer/also").alias.has_value() != at(catalog, "param/gone/strange").alias.has_value());
  CHECK(bytes_of_tensor(catalog, at(catalog, "buffer/also")) == contents(skeleton.datasets[2], 2));
}

TEST_CASE("hdf5 skeleton: digest rows hold the paths, and their offsets lead to the digests") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  skeleton.datasets = {{"fp32", "a/b", DType::kF32, {2}, {}, {}},
                       {"fp32", "tied", DType::kF32, {2}, {}, 0},
                       {"exp_avg", "a much longer name than the others", DType::kF32, {0}, {}, {}}};
  const std::string path = folder.file("digest.h5");
  const Placement placement = write(path, skeleton);
  Bytes digest(8);
  for (const size_t i : {size_t{0}, size_t{2}}) {
    store_le<uint64_t>(digest.data(), 0x1122334455667700u + i);
    overwrite(path, placement.digest_offsets[i], digest);
  }

  struct Row {
    char path[64];
    uint64_t crc64;
  };
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, sizeof(Row::path));
  H5Tset_cset(text, H5T_CSET_UTF8);
  const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(Row));
  H5Tinsert(type, "path", offsetof(Row, path), text);
  H5Tinsert(type, "crc64", offsetof(Row, crc64), H5T_NATIVE_UINT64);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t rows = H5Dopen2(file, "/digest", H5P_DEFAULT);
  const hid_t space = H5Dget_space(rows);
  REQUIRE(H5Sget_simple_extent_npoints(space) == 2);
  Row read[2];
  REQUIRE(H5Dread(rows, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, read) >= 0);
  CHECK(std::string(read[0].path) == "fp32/a%2fb");
  CHECK(read[0].crc64 == 0x1122334455667700u);
  CHECK(std::string(read[1].path) == "exp_avg/a much longer name than the others");
  CHECK(read[1].crc64 == 0x1122334455667702u);
  H5Sclose(space);
  H5Dclose(rows);
  H5Tclose(type);
  H5Tclose(text);
  CHECK(H5Fclose(file) >= 0);
}

TEST_CASE("hdf5 skeleton: objects, also long ones") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  const std::string json = cat("{\"big\": \"", std::string(3 << 20, 'j'), "\"}");
  skeleton.datasets = {
      {"objects/" + hdf5::escape_name("zero/rank_0.pt"), "pickle", DType::kU8, {1000}, {}, {}},
      {"objects/empty", "pickle", DType::kU8, {0}, {}, {}}};
  skeleton.texts = {{"objects/" + hdf5::escape_name("zero/rank_0.pt"), "json", json},
                    {"objects/empty", "json", ""},
                    {"", "layout", "ucl 1\n"}};
  const std::string path = folder.file("objects.h5");
  write(path, skeleton);

  const Catalog catalog = open_hdf5(path);
  CHECK(catalog.tensors.empty());
  REQUIRE(catalog.objects.size() == 2);
  CHECK(catalog.objects[0].origin == "empty");
  CHECK(catalog.objects[0].json == "");
  const Object& object = catalog.objects[1];
  CHECK(object.origin == "zero/rank_0.pt");
  CHECK((object.json == json));
  CHECK(catalog.files[object.file]->read_range(object.offset, object.size) ==
        contents(skeleton.datasets[0], 0));

  OpenOptions without;
  without.want_objects = false;
  CHECK(hdf5::read(target_of(path), without).objects[1].json == "");
  OpenOptions strict;
  strict.limits.json_bytes = 1 << 20;
  CHECK(code_of([&] { hdf5::read(target_of(path), strict); }) == "limit.json_bytes");
}

TEST_CASE("hdf5 skeleton: refuses what no HDF5 file can hold") {
  const TempFolder folder;
  const auto verdict = [&](std::vector<Dataset> datasets) {
    Skeleton skeleton = empty_skeleton();
    skeleton.datasets = std::move(datasets);
    return code_of([&] { hdf5::create_skeleton(folder.file("refused.h5"), skeleton); });
  };
  CHECK(verdict({{"fp32", "w", DType::kF32, Shape(33, 1), {}, {}}}) == "hdf5.rank");
  CHECK(verdict({{"fp32", "w", DType::kF32, Shape(32, 1), {}, {}}}) == "");
  CHECK(verdict({{"fp32", "w", DType::kF4, {3}, {}, {}}}) == "hdf5.sub_byte");
  CHECK(verdict({{"fp32", "w", DType::kF4, {}, {}, {}}}) == "hdf5.sub_byte");
  CHECK(verdict({{"fp32", "w", DType::kF32, {1}, {}, {}}, {"fp32", "w", DType::kF32, {1}, {}, {}}}) ==
        "hdf5.duplicate");
  CHECK(verdict({{"fp32", std::string(5000, 'x'), DType::kF32, {1}, {}, {}}}) == "hdf5.name");
}

TEST_CASE("hdf5 skeleton: the same skeleton makes the same bytes") {
  const TempFolder folder;
  Skeleton skeleton = empty_skeleton();
  skeleton.datasets = {{"fp32", "a", DType::kF32, {5}, DType::kF16, {}},
                       {"param", "b/c", DType::kF8E4M3, {5}, {}, {}}};
  write(folder.file("1.h5"), skeleton);
  write(folder.file("2.h5"), skeleton);
  CHECK((slurp(folder.file("1.h5")) == slurp(folder.file("2.h5"))));
}
