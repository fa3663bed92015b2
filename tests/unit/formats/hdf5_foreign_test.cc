// Files as other programs write them.
#include <atomic>
#include <latch>
#include <thread>

#include "lib/formats/hdf5/decoded_file.h"
#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;

namespace {

// A file in the making; identifiers are closed with it.
class Foreign {
 public:
  explicit Foreign(const std::string& path, hsize_t user_block = 0) {
    const hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_userblock(creation, user_block);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    file_ = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access);
    H5Pclose(creation);
    H5Pclose(access);
    REQUIRE(file_ >= 0);
    properties_ = H5Pcreate(H5P_DATASET_CREATE);
  }
  ~Foreign() {
    H5Pclose(properties_);
    H5Fclose(file_);
  }
  hid_t file() const { return file_; }
  hid_t properties() const { return properties_; }  // of the datasets added next

  void add(const char* name, hid_t type, const std::vector<hsize_t>& dims, const void* values,
           hid_t memory_type) {
    const hid_t space = dims.empty() ? H5Screate(H5S_SCALAR)
                                     : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
    const hid_t dataset = H5Dcreate2(file_, name, type, space, H5P_DEFAULT, properties_, H5P_DEFAULT);
    REQUIRE(dataset >= 0);
    if (values) REQUIRE(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
  }

 private:
  hid_t file_, properties_;
};

std::vector<float> numbers(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i) * 0.25f - 7;
  return values;
}

bool holds(const Catalog& catalog, std::string_view path, const std::vector<float>& values) {
  const Bytes bytes = bytes_of_tensor(catalog, at(catalog, path));
  return bytes.size() == values.size() * 4 && std::memcmp(bytes.data(), values.data(), bytes.size()) == 0;
}

}  // namespace

TEST_CASE("hdf5 foreign: big-endian, user block, groups, names") {
  const TempFolder folder;
  const std::string path = folder.file("f.h5");
  const auto values = numbers(6);
  {
    Foreign made(path, 1024);
    made.add("big", H5T_IEEE_F32BE, {2, 3}, values.data(), H5T_NATIVE_FLOAT);
    H5Gclose(H5Gcreate2(made.file(), "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    made.add("g/plain%41", H5T_IEEE_F32LE, {6}, values.data(), H5T_NATIVE_FLOAT);
    made.add("scalar", H5T_IEEE_F32LE, {}, values.data(), H5T_NATIVE_FLOAT);
    made.add("none", H5T_IEEE_F32LE, {0, 5}, nullptr, 0);
    H5Lcreate_hard(made.file(), "big", made.file(), "tied", H5P_DEFAULT, H5P_DEFAULT);
  }
  CHECK(hdf5::recognises(target_of(path)));
  const Catalog catalog = open_hdf5(path);
  CHECK(catalog.tensors.size() == 5);
  CHECK(holds(catalog, "param/big", values));
  CHECK(holds(catalog, "param/tied", values));
  CHECK(at(catalog, "param/tied").alias.has_value());
  CHECK(holds(catalog, "param/g/plain%41", values));
  CHECK(holds(catalog, "param/scalar", {values[0]}));
  CHECK(at(catalog, "param/none").shape == Shape{0, 5});
  CHECK(catalog.warnings.empty());
}

TEST_CASE("hdf5 foreign: packed, chunked and compact datasets are decoded on use") {
  const TempFolder folder;
  const std::string path = folder.file("packed.h5");
  const auto values = numbers(700 * 900);
  {
    Foreign made(path);
    const hsize_t chunk[2] = {64, 100};  // does not divide the shape
    H5Pset_chunk(made.properties(), 2, chunk);
    made.add("chunked", H5T_IEEE_F32LE, {700, 900}, values.data(), H5T_NATIVE_FLOAT);
    H5Pset_shuffle(made.properties());
    H5Pset_deflate(made.properties(), 4);
    H5Pset_fletcher32(made.properties());
    made.add("packed", H5T_IEEE_F32LE, {700, 900}, values.data(), H5T_NATIVE_FLOAT);
    made.add("packed_big_endian", H5T_IEEE_F32BE, {700, 900}, values.data(), H5T_NATIVE_FLOAT);
    made.add("packed_none", H5T_IEEE_F32LE, {0, 900}, nullptr, 0);
    H5Premove_filter(made.properties(), H5Z_FILTER_ALL);
    H5Pset_layout(made.properties(), H5D_COMPACT);
    made.add("compact", H5T_IEEE_F32LE, {50}, values.data(), H5T_NATIVE_FLOAT);
    made.add("compact_scalar", H5T_IEEE_F32LE, {}, values.data(), H5T_NATIVE_FLOAT);
  }
  const Catalog catalog = open_hdf5(path);
  CHECK(holds(catalog, "param/chunked", values));
  CHECK(holds(catalog, "param/packed", values));
  CHECK(holds(catalog, "param/packed_big_endian", values));
  CHECK(holds(catalog, "param/compact", std::vector(values.begin(), values.begin() + 50)));
  CHECK(holds(catalog, "param/compact_scalar", {values[0]}));
  CHECK(bytes_of_tensor(catalog, at(catalog, "param/packed_none")).empty());

  // One element from the middle, by many threads at once, from a fresh catalog.
  const Catalog again = open_hdf5(path);
  const Tensor& packed = at(again, "param/packed");
  const Piece piece = again.pieces_of(packed.pieces)[0];
  // All threads are there before the first one forks a reader: GCC 12's AddressSanitizer leaves its allocator
  // locked in a child that is forked while another thread allocates.
  constexpr size_t kThreads = 4;
  std::latch all_there(kThreads);
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      all_there.arrive_and_wait();
      float value = 0;
      const size_t element = 123'456 + t;
      again.files[piece.file]->read_at(piece.offset + static_cast<int64_t>(element * 4),
                                       {reinterpret_cast<uint8_t*>(&value), 4});
      right += value == values[element];
    });
  for (auto& thread : threads) thread.join();
  CHECK(right == kThreads);
}

TEST_CASE("hdf5 foreign: a file that changed or vanished before it is decoded is one error") {
  const TempFolder folder;
  const std::string path = folder.file("packed.h5");
  const auto values = numbers(1000);
  const auto make = [&](hsize_t size) {
    Foreign made(path);
    const hsize_t chunk[1] = {100};
    H5Pset_chunk(made.properties(), 1, chunk);
    H5Pset_deflate(made.properties(), 4);
    made.add("w", H5T_IEEE_F32LE, {size}, values.data(), H5T_NATIVE_FLOAT);
  };
  make(1000);
  const Catalog catalog = open_hdf5(path);
  make(900);
  CHECK(code_of([&] { bytes_of_tensor(catalog, catalog.tensors[0]); }) == "hdf5.damaged");
  fs::remove(path);
  CHECK(code_of([&] { bytes_of_tensor(catalog, catalog.tensors[0]); }) == "hdf5.damaged");
}

TEST_CASE("hdf5 foreign: what is no tensor is listed and refused, what leads elsewhere is not followed") {
  const TempFolder folder;
  const std::string path = folder.file("odd.h5");
  {
    Foreign made(path);
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 16);
    made.add("text", text, {}, "0123456789abcdef", text);
    made.add("texts", text, {1}, "0123456789abcdef", text);
    H5Tset_size(text, H5T_VARIABLE);
    made.add("free_text", text, {}, nullptr, 0);
    H5Tclose(text);
    made.add("unwritten", H5T_IEEE_F32LE, {10}, nullptr, 0);
    made.add("long_double", H5T_NATIVE_LDOUBLE, {1}, nullptr, 0);
    made.add("bits", H5T_STD_B8LE, {1}, nullptr, 0);
    const hid_t empty = H5Screate(H5S_NULL);
    H5Dclose(H5Dcreate2(made.file(), "null", H5T_IEEE_F32LE, empty, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(empty);
    const hsize_t chunk[1] = {10};
    H5Pset_chunk(made.properties(), 1, chunk);
    H5Pset_nbit(made.properties());
    made.add("nbit", H5T_IEEE_F32LE, {10}, numbers(10).data(), H5T_NATIVE_FLOAT);
    H5Lcreate_soft("/text", made.file(), "soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/x", made.file(), "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
  }
  const Catalog catalog = open_hdf5(path);
  CHECK(catalog.tensors.size() == 8);
  for (const Tensor& tensor : catalog.tensors) {
    CAPTURE(tensor.name);
    CHECK(!tensor.refusal.empty());
    CHECK(tensor.pieces.count == 0);
  }
  REQUIRE(catalog.warnings.size() == 2);
  CHECK(catalog.warnings[0] == "`elsewhere` is a link to another file: it is not followed");
  CHECK(catalog.warnings[1] == "`soft` is a soft link: it is not followed");
}

TEST_CASE("hdf5 foreign: groups nested too deeply are refused") {
  const TempFolder folder;
  const auto verdict = [&](int depth) {
    const std::string path = folder.file("deep.h5");
    {
      Foreign made(path);
      std::string name;
      for (int i = 0; i < depth; ++i) {
        name += "/g";
        H5Gclose(H5Gcreate2(made.file(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
      }
    }
    return code_of([&] { open_hdf5(path); });
  };
  CHECK(verdict(200) == "");
  CHECK(verdict(300) == "hdf5.damaged");
}

TEST_CASE("hdf5: blocks to decode are whole chunks of about a mebibyte") {
  using hdf5::block_shape;
  CHECK(block_shape({}, {}, 4) == Shape{});
  CHECK(block_shape({10}, {100}, 4) == Shape{10});
  CHECK(block_shape({1'000'000}, {10}, 4) == Shape{262'140});
  CHECK(block_shape({1000, 1000}, {10, 100}, 4) == Shape{260, 1000});
  CHECK(block_shape({1000, 100'000'000}, {1000, 1}, 4) == Shape{1000, 262});
  CHECK(block_shape({4096, 4096}, {4096, 4096}, 4) == Shape{4096, 4096});
}
