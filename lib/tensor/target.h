// What a writer lays out: the files to make, their fixed bytes, and the holes that are to be filled with
// boxes of tensors. A writer never writes tensor bytes; the executor fills its holes, whatever the format.
//
// A *shard* is what one owner (a rank, or everyone) is to hold of one tensor: a row-major array of elements.
// Its pieces say which box of the tensor lies where in it; elements that no piece fills are padding: zeros. A
// *hole* is a range of a shard in one file. So a parameter that ZeRO cuts over a thousand ranks is one shard
// with a thousand holes, and its 16-bit module weight is one more hole of the same shard, cast on the way.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/base/shared_bytes.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// One box of the tensor inside a shard: axes as in `Piece`, strides and offset in elements of the shard.
struct TargetPiece {
  int64_t offset;
  uint32_t axes_at;
  uint8_t rank;
  bool is_copy =
      false;  // pieces of other shards have these elements, too: neither compared nor counted again
};

struct TargetShard {
  uint32_t tensor;  // index in the catalog
  int64_t numel;    // units_of() it, padding counted
  uint32_t first_piece = 0, pieces = 0;
  bool is_padded = false;          // there are elements that no piece fills
  double factor = 1, summand = 0;  // what is written is the tensor's value times this, plus that
};

// One unbroken range of one output file. Holes are listed file by file, in the order in which they lie there.
struct Hole {
  uint32_t shard;
  uint32_t file = 0;
  int64_t offset = 0;            // bytes in the file; of a file with `make`, told by it
  int64_t first = 0, count = 0;  // units of the shard
  DType dtype{};                 // as written; where it is not the tensor's own, floats are cast
  bool is_copy = false;          // another hole of the shard has these elements, too

  int64_t bytes() const { return count * unit_size(dtype); }
};

// The CRC-64 of a hole's bytes, 8 bytes little-endian or 16 hexadecimal digits, written last.
struct LateDigest {
  uint32_t hole;
  int64_t offset;  // byte offset in the hole's file
  bool is_text = false;
};

// The CRC-32 of a range of a file, 4 bytes little-endian at each of `places` that is not kNowhere, written
// last. The range holds nothing but the given holes and zeros.
struct LateChecksum {
  uint32_t file;
  int64_t offset, size;
  uint32_t first_hole, holes;
  static constexpr int64_t kNowhere = -1;
  std::array<int64_t, 2> places = {kNowhere, kNowhere};  // byte offsets in the file
};

struct FixedBytes {
  int64_t offset;
  SharedBytes bytes;
};

// Where everything lies in a file that a library made.
struct MadeFile {
  int64_t size = 0;
  std::vector<int64_t> hole_offsets;  // of the file's holes, in order; -1 for one without bytes
  std::vector<LateDigest> digests;
};

struct TargetFile {
  std::string name;  // relative to the output folder; "" where the output is one file
  int64_t size = 0;
  std::vector<FixedBytes> fixed;
  // Makes all of it but the holes' bytes, at a path that names an empty file.
  std::function<MadeFile(const std::string& path)> make;
};

struct TargetLayout {
  std::vector<TargetFile> files;
  std::vector<TargetShard> shards;
  std::vector<TargetPiece> pieces;
  std::vector<Axis> axes;
  std::vector<Hole> holes;
  std::vector<LateChecksum> checksums;
  std::vector<LateDigest> digests;  // but those in files that a library makes
  std::vector<uint32_t> unnamed;    // further names (tensors of the catalog) that the output does not have
  std::vector<std::string> notes;   // what was chosen where the input leaves a choice, what is left out

  bool is_folder() const { return files.size() != 1 || !files.front().name.empty(); }
  const Tensor& tensor_of(const Catalog& catalog, const Hole& hole) const {
    return catalog.tensors[shards[hole.shard].tensor];
  }

  // The whole tensor, row-major.
  uint32_t add_whole_shard(const Catalog& catalog, uint32_t tensor) {
    const int64_t numel = units_of(catalog.tensors[tensor]);
    shards.push_back({tensor, numel, static_cast<uint32_t>(pieces.size()), 1});
    pieces.push_back({0, static_cast<uint32_t>(axes.size()), 1});
    axes.push_back({numel, 0, numel, 1});
    return static_cast<uint32_t>(shards.size() - 1);
  }
};

}  // namespace uckpt
