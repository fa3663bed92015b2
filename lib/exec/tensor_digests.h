// The digest of each logical tensor as it is written, however its elements are scattered over shards: CRC-64
// over its row-major bytes. So it is the same for every layout of the same tensor in the same type.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/exec/findings.h"

namespace uckpt::exec {

struct TensorDigest {
  uint32_t tensor;  // of the catalog
  DType dtype;      // as written
  uint64_t crc64;
};

class TensorDigests {
 public:
  TensorDigests(const Catalog& catalog, const TargetLayout& target);

  // Has a hole shares to add? Those of others follow from their own digests.
  bool is_scattered(uint32_t hole) const;
  // Adds to `findings` the share of the bytes of such a hole from its unit `begin` on. `scratch` is a buffer
  // to use again.
  void add(uint32_t hole, int64_t begin, ByteSpan written, Bytes& scratch, Findings& findings) const;
  // One for each tensor that has holes of its own, in the catalog's order.
  std::vector<TensorDigest> finish(const Totals& totals) const;

 private:
  int64_t bytes_of_tensor(uint32_t hole) const;

  const Catalog& catalog_;
  const TargetLayout& target_;
  // Where the elements of each shard lie in its tensor: moves in units, "from" the tensor "to" the shard.
  plan::Plan where_;
  std::vector<int64_t> run_begin_;  // of each shard: it is one run of its tensor, from this unit on; else -1
};

}  // namespace uckpt::exec
