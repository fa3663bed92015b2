// Object headers of plain datasets, read without the library.
//
// Opening a dataset costs the library 20 microseconds, most of it for property lists that nobody asks for: at
// 100,000 tensors that is all the time there is. The header of a dataset as we write it is 257 bytes that say
// shape and place; all else in it (element type, fill value, attributes) is the same in every one, so the
// library is asked once for each such form. Whatever is not of this kind to the last byte is left to the
// library. Included by .cc files of this folder only.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/formats/hdf5/handle.h"
#include "lib/formats/hdf5/survey.h"

namespace uckpt::hdf5 {

// What the bytes of one header say.
struct PlainHeader {
  struct Text {  // an attribute's text of variable length, in the global heap
    std::string attribute;
    uint32_t length = 0, index = 0;
    uint64_t heap = 0;
  };
  std::string form;  // the bytes that decide what the library makes of it, but for the following
  Shape shape;       // no zeros in it
  int64_t elements = 1;
  int64_t offset = 0, stored_bytes = 0;
  std::vector<Text> texts;
};

// `bytes` begin where the header does. Nothing unless it is a dataset's header of version 2 in one part, its
// checksum right, with nothing shared in it and the bytes of the dataset in one place.
std::optional<PlainHeader> parse_plain_header(ByteSpan bytes, bool with_attributes);

// The checksum of the format's metadata (Jenkins' lookup3).
uint32_t metadata_checksum(ByteSpan bytes);

// Reads headers out of an open file.
class PlainHeaders {
 public:
  PlainHeaders(hid_t file, bool with_attributes);

  // The dataset whose header is at `address`, all but its path; nothing if the library must be asked.
  std::optional<Entry> look(uint64_t address);
  // What the library said of it.
  void learn(uint64_t address, const Entry& said);

 private:
  struct Form {
    bool is_known = false;  // else the library sees more in it than we do
    DType dtype = DType::kU8;
    bool big_endian = false;
    int64_t item_bytes = 0;
  };
  // The heap's objects, as (offset, length) of heap_bytes_.
  using HeapObjects = std::unordered_map<uint32_t, std::pair<size_t, size_t>>;

  ByteSpan bytes_at(uint64_t address, size_t wanted);
  std::optional<PlainHeader> header_at(uint64_t address);
  bool take_texts(const PlainHeader& header, Entry& entry);
  std::optional<std::string> text_of(const PlainHeader::Text& text);
  bool open_heap(uint64_t address);

  int fd_ = -1;  // -1: not a file of the plain kind
  bool with_attributes_;
  Bytes window_;
  uint64_t window_at_ = 0;
  std::unordered_map<std::string, Form> forms_;
  uint64_t heap_at_ = 0;  // 0: none
  Bytes heap_bytes_;
  HeapObjects heap_objects_;
};

}  // namespace uckpt::hdf5
