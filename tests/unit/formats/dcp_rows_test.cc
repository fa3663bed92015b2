// The packed rows of `.metadata`: what goes in comes out, and what is not as torch writes it stays an object.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/dcp/rows.h"
#include "lib/pickle/document.h"
#include "lib/pickle/machine.h"
#include "tests/unit/pickle/raw.h"

using namespace uckpt;
using dcp::Rows;

namespace {

std::string text(std::string_view s) { return raw("\x8c") + static_cast<char>(s.size()) + std::string(s); }

// torch.Size, as it reduces: its class called with one tuple.
std::string size(const std::string& numbers) { return "ctorch\nSize\n(" + numbers + "t\x85R"; }

// An object of torch.distributed.checkpoint with these attributes.
std::string object(const std::string& cls, const std::string& attributes) {
  const size_t dot = cls.rfind('.');
  return "ctorch.distributed.checkpoint." + cls.substr(0, dot) + "\n" + cls.substr(dot + 1) + "\n)\x81}(" +
         attributes + "ub";
}
std::string pickled_chunk(const std::string& offsets, const std::string& sizes) {
  return object("metadata.ChunkStorageMetadata", text("offsets") + offsets + text("sizes") + sizes);
}
std::string pickled_index(const std::string& fqn, const std::string& offset) {
  return object("metadata.MetadataIndex", text("fqn") + fqn + text("offset") + offset + text("index") + "N");
}
std::string pickled_place(const std::string& file, const std::string& offset, const std::string& length,
                          const std::string& more = "") {
  return object("filesystem._StorageInfo",
                text("relative_path") + file + text("offset") + offset + text("length") + length + more);
}

// A pickle of one object. An object in which torch.Size is met for the first time stays an object: one comes
// before it.
struct Read {
  explicit Read(const std::string& body) : rows(limits) {
    const std::string pickle = raw("\x80\x04](") + size("") + body + "e.";
    const auto read = [&](size_t at, std::span<uint8_t> to) {
      std::copy_n(pickle.begin() + static_cast<int64_t>(at), to.size(), to.begin());
    };
    row = pickle::parse_folding(pickle.size(), read, rows, limits)->root().at(1).folded();
  }
  pickle::Limits limits;
  Rows rows;
  std::optional<uint32_t> row;
};

}  // namespace

TEST_CASE("rows: chunks, indices and places of a pickle") {
  Shape offsets, sizes;
  const Read of_chunk(pickled_chunk(size("K\x01M\x2c\x01"), size(raw("K\x03K\x00"))));
  REQUIRE(of_chunk.row);
  of_chunk.rows.chunk(*of_chunk.row, offsets, sizes);
  CHECK(offsets == Shape{1, 300});
  CHECK(sizes == Shape{3, 0});

  Rows::Index found;
  const Read of_index(pickled_index(text("model.w"), size("K\x07")));
  REQUIRE(of_index.row);
  of_index.rows.index(*of_index.row, found);
  CHECK(of_index.rows.text(found.key) == "model.w");
  CHECK(of_index.rows.key_of(*of_index.row) == "model.w");
  CHECK(found.has_offsets);
  CHECK(found.offsets == Shape{7});

  const Read of_place(pickled_place(text("__0_0.distcp"), "K\x05", "J\xff\xff\xff\x7f"));
  REQUIRE(of_place.row);
  const Rows::Place at = of_place.rows.place(*of_place.row);
  CHECK(of_place.rows.text(at.item.file) == "__0_0.distcp");
  CHECK(at.item.offset == 5);
  CHECK(at.item.length == 0x7fffffff);
  CHECK(of_place.rows.text(at.transforms) == "");
}

TEST_CASE("rows: an index without offsets is not one of rank 0") {
  Rows::Index found;
  const Read none(pickled_index(text("a"), "N")), scalar(pickled_index(text("a"), size("")));
  REQUIRE(none.row);
  REQUIRE(scalar.row);
  none.rows.index(*none.row, found);
  CHECK_FALSE(found.has_offsets);
  scalar.rows.index(*scalar.row, found);
  CHECK(found.has_offsets);
  CHECK(found.offsets.empty());
}

TEST_CASE("rows: what is not as torch writes it is left to the reader") {
  const std::string one = size("K\x01");
  CHECK(Read(pickled_chunk(one, one)).row);
  CHECK_FALSE(Read(pickled_chunk("N", one)).row);
  CHECK_FALSE(Read(pickled_chunk(one, text("1"))).row);
  CHECK_FALSE(Read(pickled_chunk(one, size("J\xff\xff\xff\xff"))).row);  // negative
  CHECK_FALSE(Read(pickled_chunk(one, size(text("1")))).row);
  CHECK_FALSE(
      Read(pickled_chunk(one, size("\x8a\x09" + std::string(8, '\xff') + raw("\x00")))).row);  // 2^64 - 1
  std::string deep;
  for (int64_t i = 0; i <= pickle::Limits().tensor_rank; ++i) deep += "K\x01";
  CHECK_FALSE(Read(pickled_chunk(one, size(deep))).row);
  CHECK_FALSE(Read(object("metadata.ChunkStorageMetadata", text("offsets") + one)).row);

  CHECK_FALSE(Read(pickled_index("K\x01", one)).row);
  CHECK_FALSE(Read(pickled_index(text("\xed\xa0\x80"), one)).row);  // half a surrogate pair: no UTF-8
  CHECK_FALSE(Read(pickled_index(text("a"), "K\x01")).row);

  CHECK(Read(pickled_place(text("f"), "K\x01", "K\x02", text("transform_descriptors") + "N")).row);
  CHECK_FALSE(Read(pickled_place(text("f"), "K\x01", "K\x02", text("transform_descriptors") + "]")).row);
  CHECK_FALSE(Read(pickled_place("N", "K\x01", "K\x02")).row);
  CHECK_FALSE(Read(pickled_place(text("f"), "J\xff\xff\xff\xff", "K\x02")).row);
  CHECK_FALSE(Read(pickled_place(text("f"), "K\x01", "N")).row);
  CHECK_FALSE(Read(object("metadata.TensorStorageMetadata", text("size") + one)).row);
}

TEST_CASE("rows: numbers of any size, texts once") {
  const pickle::Limits limits;
  Rows rows(limits);
  const Shape numbers = {0, 1, 127, 128, 16383, 16384, INT64_MAX};
  const Rows::Row first = rows.add_chunk(numbers, {}), second = rows.add_chunk({}, numbers),
                  place = rows.add_place("file", INT64_MAX, 0, "zstd"),
                  index = rows.add_index("file", &numbers), none = rows.add_index("other", nullptr);
  Shape offsets, sizes;
  rows.chunk(first, offsets, sizes);
  CHECK(offsets == numbers);
  CHECK(sizes.empty());
  rows.chunk(second, offsets, sizes);
  CHECK(offsets.empty());
  CHECK(sizes == numbers);
  CHECK(rows.place(place).item.offset == INT64_MAX);
  CHECK(rows.text(rows.place(place).transforms) == "zstd");
  Rows::Index found;
  rows.index(index, found);
  CHECK(found.key == rows.place(place).item.file);
  CHECK(found.offsets == numbers);
  CHECK(rows.key_of(none) == "other");
  CHECK(rows.find_text("zstd") == rows.place(place).transforms);
  CHECK_FALSE(rows.find_text("absent"));
}
