// Fills ranges of holes as they are to be written: gathered, compared with the input's other copies, cast,
// summed up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/exec/gather.h"
#include "lib/exec/lane_use.h"
#include "lib/exec/tasks.h"
#include "lib/exec/tensor_digests.h"
#include "lib/kernels/cpu_lane.h"

namespace uckpt::exec {

// One a lane.
class Filler {
 public:
  // `digests` may be null: digests of scattered tensors are not wanted. So may `direct`: see LaneUse.
  Filler(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
         const Totals::Wanted& wanted, const TensorDigests* digests, kernels::Lane& lane,
         DirectFiles* direct = nullptr);

  // `count` units of a hole from `begin` on into the lane's output at `written`. They are there, and what was
  // found of them, after `settle`.
  void fill(uint32_t hole, int64_t begin, int64_t count, int64_t written);
  // Must the host have what was filled before `settle`?
  bool needs_host() const { return !scattered_.empty(); }
  // `written`: the lane's output.
  void settle(ByteSpan written);
  // A range of the input for a record's checksum alone.
  void check(const plan::CheckRead& read) { gatherer_.check(read); }
  // What was found since the last `clear`.
  Findings& findings() { return findings_; }

 private:
  void gather(const Hole& hole, int64_t begin, int64_t count, kernels::At out, DType dtype);
  void add_sums(uint32_t hole, int64_t begin, int64_t count, const Range& written);

  struct Filled {
    uint32_t hole;
    int64_t begin;
    Range written;
  };

  const Catalog& catalog_;
  const TargetLayout& target_;
  const TensorDigests* const digests_;
  const Totals::Wanted wanted_;
  Findings findings_;
  LaneUse lane_;
  Gatherer gatherer_;
  std::vector<Filled> scattered_;  // whose shares of tensors' digests are still to be added
  Bytes scratch_;
};

// The same on this thread, at once.
class CpuFiller {
 public:
  CpuFiller(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
            const Totals::Wanted& wanted, const TensorDigests* digests, const Buffers& buffers)
      : lane_(buffers.staging_bytes), filler_(catalog, target, plan, wanted, digests, lane_) {}

  // `written` is of their size exactly.
  void fill(uint32_t hole, int64_t begin, int64_t count, std::span<uint8_t> written) {
    lane_.set_output(written);
    filler_.fill(hole, begin, count, 0);
    filler_.settle(written);
  }
  void check(const plan::CheckRead& read) { filler_.check(read); }
  Findings& findings() { return filler_.findings(); }

 private:
  kernels::CpuLane lane_;
  Filler filler_;
};

}  // namespace uckpt::exec
