// What one HDF5 file holds, as a sandboxed child saw it: plain values that cross a pipe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::hdf5 {

// Declared bytes over stored bytes: deflate packs at most 1,032 to 1, more is a claim with nothing behind it.
inline constexpr int64_t kMaxExpansion = 1100;

struct Entry {
  enum class Kind : uint8_t {
    kTensor,
    kText,   // a scalar of fixed length: `shape` is {bytes}
    kOther,  // a dataset that is listed, but not read: `note` says why
    kAlias,  // a further hard link to the dataset `source`
    kLink,   // a link that is not followed: `note` says of what kind
    kRows,   // rows of a fixed text and 8 bytes, as in /digest: `shape` is {rows}, `note` as of kOther
  };
  Kind kind = Kind::kOther;
  std::string path;  // link names joined by '/', without a leading one
  std::string note;
  uint32_t source = 0;  // index of an earlier entry

  DType dtype = DType::kU8;
  bool big_endian = false;
  Shape shape;                    // of a dataset; {} where it is not known
  std::optional<int64_t> offset;  // of the bytes in the file, if they lie there as they are
  int64_t stored_bytes = 0;
  Shape chunk;  // the unit to decode in, if there is no offset

  // Attributes of a consolidated file's datasets.
  std::string dtype_name, module_dtype;
  std::optional<Shape> logical_shape;
};

struct Survey {
  bool is_consolidated = false;  // then the root's attributes are here too
  std::map<std::string, std::string> texts;
  std::map<std::string, int64_t> integers;
  std::vector<Entry> entries;
};

// Looks at the file in a child process. Throws refused `hdf5.damaged`.
Survey survey_file(const std::string& path);

// The two ends of that. The child's: opens the file, then no other, and says what is there.
class Outbox;
void tell_survey(Outbox& out, const std::string& path);
// The parent's: everything is checked to be well-formed (counts, ranks, known types, earlier sources, no
// overflow), nothing is checked against the file.
class Inbox;
Survey hear_survey(Inbox& answer);

}  // namespace uckpt::hdf5
