// Writes `.metadata`, the pickle that says what a distributed checkpoint holds and where: torch 2.13's
// torch.distributed.checkpoint.metadata.Metadata.
#pragma once

#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/formats/dcp/write/data_files.h"

namespace uckpt::dcp {

struct WrittenChunk {
  Shape offsets, sizes;
  size_t item = 0;  // a number in the list of places
};

struct WrittenTensor {
  std::string key;
  KeyPath path;
  DType dtype{};
  Shape shape;
  std::vector<WrittenChunk> chunks;
};

struct WrittenObject {
  std::string key;
  KeyPath path;
  size_t item = 0;
};

// `has_paths`: the nesting of the keys is kept, as `planner_data`.
Bytes metadata_pickle(const std::vector<WrittenTensor>& tensors, const std::vector<WrittenObject>& objects,
                      const std::vector<ItemPlace>& places, bool has_paths);

}  // namespace uckpt::dcp
