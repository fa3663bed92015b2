// What the objects say that `.metadata` has for every chunk of every tensor, in a few bytes each: taken out
// of the pickle while it is read.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/pickle/folder.h"

namespace uckpt::dcp {

class Rows final : public pickle::Folder {
 public:
  using Row = uint32_t;  // where it begins
  struct Index {
    uint32_t key = 0;  // of text()
    bool has_offsets = false;
    Shape offsets;
  };
  struct Place {
    ItemRange item;       // the file is a number of text()
    uint32_t transforms;  // of text(); that of "" where there are none
  };

  explicit Rows(const pickle::Limits& limits) : limits_(limits) {}

  // Folds what is as torch writes it. Objects that are not are left to the reader, which says what is wrong.
  std::optional<uint8_t> wants(const pickle::Global& cls) const override;
  std::optional<uint32_t> fold(uint8_t cls, const pickle::Value& object) override;

  Row add_chunk(const Shape& offsets, const Shape& sizes);
  Row add_index(std::string_view key, const Shape* offsets);
  Row add_place(std::string_view file, int64_t offset, int64_t length, std::string_view transforms);

  void chunk(Row row, Shape& offsets, Shape& sizes) const;
  void index(Row row, Index& out) const;
  Place place(Row row) const;
  const std::string& key_of(Row index) const;

  // Keys, file names and transforms.
  const std::string& text(uint32_t number) const { return *texts_[number]; }
  std::optional<uint32_t> find_text(std::string_view text) const;

 private:
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  class Cursor;

  uint32_t number_of(std::string_view text);
  Row begin() const;
  void put(uint64_t value);
  void put(const Shape& values);
  bool read_sizes(const pickle::Value& value, Shape& out) const;

  const pickle::Limits& limits_;
  std::deque<uint8_t> bytes_;  // numbers of seven bits a byte, the lowest first
  std::unordered_map<std::string, uint32_t, TextHash, std::equal_to<>> numbers_;
  std::vector<const std::string*> texts_;
  Shape first_, second_;  // scratch
};

}  // namespace uckpt::dcp
