// The consolidated file without its tensor bytes: made by the HDF5 library, filled by the executor.
//
// Writing follows what was measured as fast: the library creates every dataset contiguous, allocated early
// and never filled, tells its byte offset and closes the file; the bytes are then written at those offsets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::hdf5 {

inline constexpr int64_t kDigestBytes = 8;  // of a row of /digest, behind its path

struct Dataset {
  std::string group;  // "fp32", "objects/mp_rank_00_model_states.pt"; made as needed
  std::string name;   // the true name: escaped for the link, kept whole in an attribute if escaped
  DType dtype = DType::kU8;
  Shape shape;
  std::optional<DType> module_dtype;  // attribute: dtype of the module's copy of this master
  std::optional<size_t> link_to;      // a hard link to an earlier dataset (tied tensors): no bytes of its own
};

// Scalar UTF-8 strings: /layout, /objects/<origin>/json.
struct TextDataset {
  std::string group, name, text;
};

struct Skeleton {
  std::vector<Dataset> datasets;
  std::vector<TextDataset> texts;
  std::vector<std::pair<std::string, std::string>> text_attributes;  // on the root
  std::vector<std::pair<std::string, int64_t>> int_attributes;
};

struct Placement {
  std::vector<int64_t> offsets;  // of each dataset's first byte; -1 where it has no bytes
  // /digest: one row {path, crc64} for every dataset with `link_to` unset, in order. Byte offset in the file
  // of each row's 8-byte little-endian crc64, to be filled last; -1 for linked datasets.
  std::vector<int64_t> digest_offsets;
  int64_t file_size = 0;
};

// Creates the file at `path` (which must exist as an empty file or not exist) and closes it again. Refuses
// what no HDF5 file can hold (`hdf5.rank`, `hdf5.name`, `hdf5.duplicate`, `hdf5.sub_byte`); trouble
// (`hdf5.library`, `io.system`) where the file cannot be written. After an error what lies at `path` is
// worthless.
Placement create_skeleton(const std::string& path, const Skeleton& skeleton);

// The link name for a true name: `/`, `%`, control bytes, a lone "." and, where the name is not UTF-8, every
// byte beyond ASCII become %xx; the empty name becomes "%". unescape_name turns it back exactly.
std::string escape_name(std::string_view name);
std::string unescape_name(std::string_view link);

// HDF5's limit on dimensions; a tensor of higher rank is refused by name.
inline constexpr size_t kMaxRank = 32;

// Bytes of a link's whole path. HDF5 has no limit; but each row of /digest is as long as the longest path.
inline constexpr size_t kMaxPath = 4096;

}  // namespace uckpt::hdf5
