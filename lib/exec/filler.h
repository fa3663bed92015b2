// Fills ranges of holes as they are to be written: gathered, compared with the input's other copies, cast,
// summed up. One Filler a thread.
#pragma once

#include <cstdint>
#include <span>

#include "lib/exec/gather.h"
#include "lib/exec/tasks.h"
#include "lib/exec/tensor_digests.h"

namespace uckpt::exec {

class Filler {
 public:
  // `digests` may be null: digests of scattered tensors are not wanted.
  Filler(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
         const Totals::Wanted& wanted, const TensorDigests* digests, const Buffers& buffers);

  // `count` units of a hole from `begin` on into `written`, which is of their size exactly.
  void fill(uint32_t hole, int64_t begin, int64_t count, std::span<uint8_t> written);
  // A range of the input for a record's checksum alone.
  void check(const plan::CheckRead& read) { gatherer_.check(read); }
  // What was found since the last `clear`.
  Findings& findings() { return findings_; }

 private:
  void gather(const Hole& hole, int64_t begin, std::span<uint8_t> out);
  void add_sums(uint32_t hole, int64_t begin, int64_t count, ByteSpan written);

  const Catalog& catalog_;
  const TargetLayout& target_;
  const TensorDigests* const digests_;
  const Totals::Wanted wanted_;
  Findings findings_;
  Gatherer gatherer_;
  Bytes uncast_, scratch_;
};

}  // namespace uckpt::exec
