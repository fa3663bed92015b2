// The target's half of the proof: every element of every tensor it takes lies in its shards, and every byte
// of its files is written once.
#pragma once

#include "lib/tensor/catalog.h"
#include "lib/tensor/target.h"

namespace uckpt::plan {

// Proves by arithmetic that
//   - the pieces of a tensor's shards that are no copies tile it;
//   - the pieces of a shard do not meet, and fill it where it is not padded;
//   - the holes of a shard that are no copies tile it;
//   - the holes and fixed bytes of a file lie inside it, apart from each other.
// Throws refused `plan.target` with the first thing that is not so.
void prove_target(const Catalog& catalog, const TargetLayout& target);

}  // namespace uckpt::plan
