// What a writer lays out: the ranges of the output that are to be filled, and with which boxes of which
// tensors. A writer never writes tensor bytes; the executor fills its holes, whatever the format.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt {

// One unbroken range of the output. Holes are listed in the order in which they lie in the file.
struct Hole {
  std::string name;  // "fp32/emb.weight": for messages
  uint32_t tensor;   // index in the catalog: the boxes below are of this tensor
  int64_t bytes;
};

// One box of a hole's tensor inside the hole, with axes as in `Piece`; strides count elements of the target.
struct TargetPiece {
  uint32_t hole;
  int64_t offset;  // bytes from the hole's first byte to the box's first element
  uint32_t axes_at;
  uint8_t rank;
};

// A digest's place in the output: the CRC-64 of a hole's bytes, 8 bytes little-endian, written last.
struct LateDigest {
  uint32_t hole;
  int64_t offset;  // byte offset in the file
};

// Where everything lies once the output file exists at its full size.
struct Placement {
  std::vector<int64_t> hole_offsets;  // byte offset in the file; -1 for a hole without bytes
  std::vector<LateDigest> digests;
  int64_t file_size = 0;
};

struct TargetLayout {
  std::vector<Hole> holes;
  std::vector<TargetPiece> pieces;  // sorted by hole
  std::vector<Axis> axes;
  // Creates the output at a path that names an empty file, everything in it but the holes' bytes.
  std::function<Placement(const std::string& path)> preallocate;

  void add_hole(std::string name, uint32_t tensor, int64_t bytes) {
    holes.push_back({std::move(name), tensor, bytes});
  }
  // The newest hole is the whole tensor, row-major.
  void fill_with_whole(int64_t numel) {
    pieces.push_back({static_cast<uint32_t>(holes.size() - 1), 0, static_cast<uint32_t>(axes.size()), 1});
    axes.push_back({numel, 0, numel, 1});
  }
};

}  // namespace uckpt
