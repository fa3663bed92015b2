// Writes `.metadata`, the pickle that says what a distributed checkpoint holds and where: torch 2.13's
// torch.distributed.checkpoint.metadata.Metadata.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/tensor/target.h"

namespace uckpt::dcp {

struct WrittenTensor {
  std::string key;
  KeyPath path;
  DType dtype{};
  Shape shape;
  Boxes boxes;
  std::vector<uint32_t> items;  // of each box: its number in DataFileBook
};

struct WrittenObject {
  std::string key;
  KeyPath path;
  uint32_t item = 0;
};

// `places`: of all items, in `files`. `has_paths`: the nesting of the keys is kept, as
// `planner_data`.
Bytes metadata_pickle(const std::vector<WrittenTensor>& tensors, const std::vector<WrittenObject>& objects,
                      const std::vector<ItemRange>& places, std::span<const TargetFile> files,
                      bool has_paths);

}  // namespace uckpt::dcp
