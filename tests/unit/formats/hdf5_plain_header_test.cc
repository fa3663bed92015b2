// Headers that are read without the library must say what the library says.
#include <array>
#include <functional>
#include <map>

#include "lib/base/checked.h"
#include "lib/formats/hdf5/dataset_view.h"
#include "lib/formats/hdf5/explorer.h"
#include "lib/formats/hdf5/plain_header.h"
#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;
using hdf5::Entry;
using hdf5::Handle;
using hdf5::PlainHeaders;
using hdf5::Skeleton;

namespace {

uint64_t address_of(hid_t object) {
#if H5_VERSION_GE(1, 12, 0)
  H5O_info2_t info;
  REQUIRE(H5Oget_info3(object, &info, H5O_INFO_BASIC) >= 0);
  return load_le<uint64_t>(reinterpret_cast<const uint8_t*>(&info.token));
#else
  H5O_info_t info;
  REQUIRE(H5Oget_info2(object, &info, H5O_INFO_BASIC) >= 0);
  return info.addr;
#endif
}

herr_t open_dataset(hid_t group, const char* name, const H5L_info_t*, void* found) {
  Handle object(H5Oopen(group, name, H5P_DEFAULT));
  if (H5Iget_type(object) == H5I_DATASET)
    static_cast<std::map<std::string, Handle>*>(found)->emplace(name, std::move(object));
  return 0;
}

std::map<std::string, Handle> datasets_in(hid_t file, const char* group) {
  std::map<std::string, Handle> found;
  const Handle opened(H5Gopen2(file, group, H5P_DEFAULT));
  REQUIRE(H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, nullptr, open_dataset, &found) >= 0);
  return found;
}

void check_equal(const Entry& seen, const Entry& said) {
  CHECK(seen.kind == said.kind);
  CHECK(seen.note == said.note);
  CHECK(seen.dtype == said.dtype);
  CHECK(seen.big_endian == said.big_endian);
  CHECK(seen.shape == said.shape);
  CHECK(seen.offset == said.offset);
  CHECK(seen.stored_bytes == said.stored_bytes);
  CHECK(seen.chunk == said.chunk);
  CHECK(seen.dtype_name == said.dtype_name);
  CHECK(seen.module_dtype == said.module_dtype);
  CHECK(seen.logical_shape == said.logical_shape);
}

// Compares each dataset that is seen without the library; tells how many were.
int count_seen(const std::string& path, const char* group, bool with_attributes) {
  const Handle file = hdf5::open_for_reading(path);
  const auto datasets = datasets_in(file, group);
  PlainHeaders plain(file, with_attributes);
  int seen = 0;
  for (int round = 0; round < 2; ++round)
    for (const auto& named : datasets) {
      const Handle& dataset = named.second;
      CAPTURE(named.first);
      const Entry said = hdf5::describe_dataset(dataset, with_attributes);
      if (const auto entry = plain.look(address_of(dataset))) {
        check_equal(*entry, said);
        seen += round;  // in the first one the forms are still learnt
      } else {
        plain.learn(address_of(dataset), said);
      }
    }
  return seen;
}

Bytes header_bytes(const std::string& path, const char* dataset) {
  const Handle file = hdf5::open_for_reading(path);
  const Handle opened(H5Dopen2(file, dataset, H5P_DEFAULT));
  const std::string all = slurp(path).substr(address_of(opened), 1024);
  return {all.begin(), all.end()};
}

// Of a header as our files have them: 2 bytes tell the length of what lies between the head and the checksum.
constexpr size_t kHead = 8;
size_t length_of(const Bytes& header) {
  REQUIRE(header[5] == 1);
  return kHead + load_le<uint16_t>(&header[6]);
}

void reseal(Bytes& header) {
  const size_t length = length_of(header);
  store_le(&header[length], hdf5::metadata_checksum(ByteSpan(header).first(length)));
}

std::string file_of_one(const TempFolder& folder) {
  Skeleton skeleton;
  skeleton.text_attributes = {{"format", "universal-checkpoint"}};
  skeleton.int_attributes = {{"version", 1}};
  skeleton.datasets.push_back({"fp32", "one", DType::kF32, {3, 5}, DType::kBF16, {}});
  std::string path = folder.file("one.h5");
  hdf5::create_skeleton(path, skeleton);
  return path;
}

}  // namespace

TEST_CASE("hdf5 plain header: a consolidated file's datasets are seen as the library sees them") {
  const TempFolder folder;
  Skeleton skeleton;
  const std::vector<Shape> shapes = {{}, {1}, {8}, {0}, {0, 4}, {2, 3, 4}, {3, 8}, Shape(32, 1), {40'000}};
  int with_bytes = 0;
  for (int d = 0; d < kDTypeCount; ++d) {
    const auto dtype = static_cast<DType>(d);
    for (size_t s = 0; s < shapes.size(); ++s) {
      const int64_t numel = *checked_product(shapes[s]);
      if (!bytes_of(dtype, numel)) continue;
      for (const auto module_dtype : {std::optional<DType>(), std::optional(DType::kBF16)})
        skeleton.datasets.push_back({"fp32",
                                     cat(name_of(dtype), ".", s, module_dtype ? "m" : ""),
                                     dtype,
                                     shapes[s],
                                     module_dtype,
                                     {}});
      with_bytes += numel > 0 && bits_of(dtype) % 8 == 0 ? 2 : 0;
    }
  }
  const std::string path = folder.file("types.h5");
  hdf5::create_skeleton(path, skeleton);
  CHECK(count_seen(path, "fp32", true) == with_bytes);
  CHECK(count_seen(path, "fp32", false) >= with_bytes);
}

TEST_CASE("hdf5 plain header: what other programs make is seen as the library sees it, or left to it") {
  hdf5::silence_library();  // not every combination can be made
  const TempFolder folder;
  const auto list = [](const std::function<void(hid_t)>& set) {
    Handle creation(H5Pcreate(H5P_DATASET_CREATE));
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    set(creation);
    return creation;
  };
  const hsize_t size = 24, unlimited = H5S_UNLIMITED, part = 5;
  const std::vector<Handle> lists = [&] {
    std::vector<Handle> made;
    made.push_back(list([](hid_t) {}));
    made.push_back(list([](hid_t p) { H5Pset_obj_track_times(p, false); }));
    made.push_back(list([](hid_t p) { H5Pset_attr_creation_order(p, H5P_CRT_ORDER_TRACKED); }));
    made.push_back(list([](hid_t p) { H5Pset_attr_phase_change(p, 0, 0); }));
    made.push_back(list([](hid_t p) { H5Pset_attr_phase_change(p, 20, 10); }));
    made.push_back(list([](hid_t p) { H5Pset_layout(p, H5D_COMPACT); }));
    made.push_back(list([&](hid_t p) { H5Pset_chunk(p, 1, &part); }));
    made.push_back(list([](hid_t p) { H5Pset_alloc_time(p, H5D_ALLOC_TIME_LATE); }));
    made.push_back(list([](hid_t p) { H5Pset_external(p, "elsewhere.bin", 0, H5F_UNLIMITED); }));
    made.push_back(list([](hid_t p) {
      const float seven = 7;
      H5Pset_fill_value(p, H5T_IEEE_F32LE, &seven);
    }));
    return made;
  }();
  const Handle text(H5Tcopy(H5T_C_S1));
  H5Tset_size(text, 8);
  int seen = 0;
  for (const H5F_libver_t low : {H5F_LIBVER_EARLIEST, H5F_LIBVER_V18, H5F_LIBVER_LATEST}) {
    for (const hsize_t user_block : {hsize_t{0}, hsize_t{512}}) {
      const std::string path = folder.file("others.h5");
      {
        const Handle access(H5Pcreate(H5P_FILE_ACCESS)), creation(H5Pcreate(H5P_FILE_CREATE));
        H5Pset_libver_bounds(access, low, H5F_LIBVER_LATEST);
        H5Pset_userblock(creation, user_block);
        const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access));
        const Handle committed(H5Tcopy(H5T_IEEE_F64BE));
        REQUIRE(H5Tcommit2(file, "type", committed, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) >= 0);
        const Handle fixed(H5Screate_simple(1, &size, nullptr)),
            extendible(H5Screate_simple(1, &size, &unlimited)), capped(H5Screate_simple(1, &size, &size)),
            scalar(H5Screate(H5S_SCALAR)), null(H5Screate(H5S_NULL));
        int number = 0;
        for (const Handle& how : lists)
          for (const hid_t type :
               {hid_t{H5T_IEEE_F32LE}, hid_t{H5T_STD_I32BE}, hid_t{committed}, hid_t{text}})
            for (const Handle* space : {&fixed, &extendible, &capped, &scalar, &null})
              for (int attributes = 0; attributes < 12; attributes += 11) {
                const Handle made(H5Dcreate2(file, cat("d", number++).c_str(), type, *space, H5P_DEFAULT, how,
                                             H5P_DEFAULT));
                for (int a = 0; made >= 0 && a < attributes; ++a)
                  H5Aclose(H5Acreate2(made, a == 0 ? "module_dtype" : cat("a", a).c_str(), text, scalar,
                                      H5P_DEFAULT, H5P_DEFAULT));
              }
      }
      seen += count_seen(path, "/", true);
      seen += count_seen(path, "/", false);
    }
  }
  CHECK(seen > 50);
}

TEST_CASE("hdf5 plain header: no flipped bit is believed") {
  const TempFolder folder;
  Bytes bytes = header_bytes(file_of_one(folder), "fp32/one");
  const auto header = hdf5::parse_plain_header(bytes, true);
  REQUIRE(header);
  CHECK(header->shape == Shape{3, 5});
  CHECK(header->stored_bytes == 60);
  CHECK(header->texts.size() == 1);
  const size_t length = length_of(bytes) + 4;
  for (size_t bit = 0; bit < 8 * length; ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    CHECK_FALSE(hdf5::parse_plain_header(bytes, true));
    bytes[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  for (size_t cut = 0; cut < length; ++cut)
    CHECK_FALSE(hdf5::parse_plain_header(ByteSpan(bytes).first(cut), true));
}

// With a checksum that fits, what is said of shape and place still is what the library reads there. Other
// parts are not changed: the library is not safe on them outside its sandbox.
TEST_CASE("hdf5 plain header: a header that is sealed anew says what the library reads in it") {
  constexpr uint8_t kDataspace = 1, kLayout = 8;
  const TempFolder folder;
  const std::string path = file_of_one(folder);
  const Bytes whole = header_bytes(path, "fp32/one");
  uint64_t address = 0;
  {
    const Handle file = hdf5::open_for_reading(path);
    const Handle opened(H5Dopen2(file, "fp32/one", H5P_DEFAULT));
    address = address_of(opened);
  }
  std::vector<size_t> places;
  for (size_t at = kHead; at + 4 <= length_of(whole);) {
    const size_t end = at + 4 + load_le<uint16_t>(&whole[at + 1]);
    if (whole[at] == kDataspace || whole[at] == kLayout)
      for (; at < end; ++at) places.push_back(at);
    at = end;
  }
  REQUIRE(places.size() > 40);
  hdf5::silence_library();
  int both = 0;
  for (const size_t at : places) {
    for (const uint8_t change : std::to_array<uint8_t>({1, 2, 0x40, 0x80, 0xff})) {
      Bytes bytes = whole;
      bytes[at] ^= change;
      reseal(bytes);
      if (!hdf5::parse_plain_header(bytes, true)) continue;
      CAPTURE(at);
      CAPTURE(change);
      overwrite(path, static_cast<int64_t>(address), bytes);
      const Handle file = hdf5::open_for_reading(path);
      const Handle opened(H5Dopen2(file, "fp32/one", H5P_DEFAULT));
      CHECK(opened >= 0);
      if (opened < 0) continue;
      const Entry said = hdf5::describe_dataset(opened, true);
      PlainHeaders plain(file, true);
      plain.learn(address, said);
      if (const auto seen = plain.look(address)) {
        check_equal(*seen, said);
        ++both;
      }
    }
  }
  CHECK(both > 0);
}

TEST_CASE("hdf5 plain header: the checksum is the library's") {
  CHECK(hdf5::metadata_checksum({}) == 0xdeadbeef);
  const std::string text = "Four score and seven years ago";  // the example of lookup3's author
  CHECK(hdf5::metadata_checksum({reinterpret_cast<const uint8_t*>(text.data()), text.size()}) == 0x17770551);
}
