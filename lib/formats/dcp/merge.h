// Saves in which every rank kept a `.metadata` of its own (`__0.metadata`, `__1.metadata`, …), made by
// torch.distributed.checkpoint.save(use_collectives=False): together they are one checkpoint.
//
// Facts: read off a folder by torch 2.13. Each rank's metadata has the whole tensors' sizes and that rank's
// own chunks; what all ranks hold, and every object, each of them saved.
#pragma once

#include <set>
#include <unordered_map>

#include "lib/formats/dcp/items.h"
#include "lib/formats/dcp/stored.h"

namespace uckpt::dcp {

class Merger {
 public:
  // Puts what the next rank saved beside what is there: new chunks, replicas of boxes that are there,
  // objects. An object that an earlier rank has too gets the rank behind its key: `step@1`. Throws refused
  // `dcp.ranks_differ` where two ranks give a tensor other types or sizes.
  void add(Stored further);
  Stored finish() && { return std::move(stored_); }

 private:
  using Box = std::pair<Shape, Shape>;
  void add(StoredTensor tensor);
  void add(StoredBytes object);

  Stored stored_;
  size_t ranks_ = 0;
  std::unordered_map<std::string, size_t> tensors_, objects_;  // by key
  std::unordered_map<size_t, std::set<Box>> boxes_;            // of each tensor that a further rank has too
};

// Drops the objects of further ranks that are, byte for byte, what the first one saved.
void drop_same_objects(Stored& stored, const DataFiles& files);

}  // namespace uckpt::dcp
