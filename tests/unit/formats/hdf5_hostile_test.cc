// Damaged and malicious files: one clear error or success, never a signal, never another file opened.
#include <chrono>

#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;

namespace {

const std::string kHostile = UCKPT_TEST_DATA "/hostile/hdf5/";

// Opens the file and reads every tensor that may be read.
std::string verdict(const std::string& path) {
  return code_of([&] {
    const Catalog catalog = open_hdf5(path);
    for (const Tensor& tensor : catalog.tensors)
      if (tensor.refusal.empty()) bytes_of_tensor(catalog, tensor);
  });
}

}  // namespace

TEST_CASE("hdf5 hostile: broken files are refused") {
  CHECK_FALSE(hdf5::recognises(target_of(kHostile + "sig_bad.h5")));
  for (const char* name : {"trunc_half.h5", "sig_bad.h5", "eof_lies.h5", "random_middle.h5"}) {
    CAPTURE(name);
    CHECK(hdf5::recognises(target_of(kHostile + name)) == (std::string_view(name) != "sig_bad.h5"));
    CHECK(verdict(kHostile + name) == "hdf5.damaged");
  }
}

TEST_CASE("hdf5 hostile: what can be shown is shown") {
  const Catalog external_link = open_hdf5(kHostile + "external_link.h5");
  CHECK(external_link.warnings.size() == 1);
  const Catalog soft = open_hdf5(kHostile + "soft_dangling.h5");
  CHECK(soft.warnings.size() == 1);
  for (const Catalog* catalog : {&external_link, &soft})
    for (const Tensor& tensor : catalog->tensors) CHECK(tensor.refusal == "");

  const Catalog external = open_hdf5(kHostile + "external_storage.h5");
  CHECK(at(external, "param/leak").refusal.find("external storage") != std::string::npos);
  CHECK(at(external, "param/w").refusal == "");
  CHECK(open_hdf5(kHostile + "hard_cycle.h5").tensors.size() == 1);
  const Catalog bomb = open_hdf5(kHostile + "shape_bomb.h5");
  CHECK(bomb.tensors.at(0).refusal.find("declares 4503599627370496 bytes") != std::string::npos);
  CHECK(open_hdf5(kHostile + "dtype_compound.h5").tensors.at(0).refusal.find("compound") !=
        std::string::npos);
}

TEST_CASE("hdf5 hostile: what is odd but right is read") {
  const Catalog gzip = open_hdf5(kHostile + "gzip_bomb.h5");
  const Bytes zeros = bytes_of_tensor(gzip, gzip.tensors.at(0));
  CHECK(zeros.size() == size_t{64} << 20);
  CHECK(std::ranges::all_of(zeros, [](uint8_t b) { return b == 0; }));

  const Catalog big_endian = open_hdf5(kHostile + "dtype_big_endian.h5");
  const Bytes bytes = bytes_of_tensor(big_endian, at(big_endian, "param/w"));
  for (size_t i = 0; i < 6; ++i) CHECK(load_le<float>(bytes.data() + 4 * i) == static_cast<float>(i));

  const auto start = std::chrono::steady_clock::now();
  CHECK(verdict(kHostile + "attr_many.h5") == "");
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("hdf5 hostile: files that make the library abort do not make us abort") {
  for (const int number : {2, 4, 6, 8, 10, 12}) {
    CAPTURE(number);
    const std::string code = verdict(cat(UCKPT_TEST_DATA "/hostile-hdf5-abort/mutant_", number, ".h5"));
    CHECK_MESSAGE((code == "" || code == "hdf5.damaged"), code);
  }
}

TEST_CASE("hdf5 hostile: every prefix of a file is refused, no flipped byte is fatal") {
  const TempFolder folder;
  hdf5::Skeleton skeleton;
  skeleton.text_attributes = {{"format", "universal-checkpoint"}};
  skeleton.int_attributes = {{"version", 1}};
  skeleton.datasets = {{"fp32", "w/x", DType::kBF16, {3, 5}, DType::kF16, {}},
                       {"fp32", "y", DType::kF32, {3, 5}, {}, 0}};
  skeleton.texts = {{"objects/a", "json", "{}"}};
  hdf5::create_skeleton(folder.file("whole.h5"), skeleton);
  const std::string whole = slurp(folder.file("whole.h5"));
  CHECK(verdict(folder.file("whole.h5")) == "");

  const std::string path = folder.file("damaged.h5");
  for (size_t i = 0; i < 40; ++i) {
    spill(path, whole.substr(0, whole.size() * i / 40));
    CHECK(verdict(path) == "hdf5.damaged");
  }
  for (size_t i = 0; i < 150; ++i) {
    std::string flipped = whole;
    flipped[(i * 7919) % std::min<size_t>(whole.size(), 4096)] ^= static_cast<char>(1 << i % 8);
    spill(path, flipped);
    const std::string code = verdict(path);
    CHECK_MESSAGE((code == "" || code == "hdf5.damaged" || code == "hdf5.version"), code);
  }
}
