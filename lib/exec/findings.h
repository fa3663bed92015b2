// What tasks find out about the bytes that they move: shares of digests and checksums, and how copies differ.
//
// Every one of them adds up, in any order and across interruptions: raw CRCs that are shifted to the end of
// what they are of (lib/kernels/crc.h) are xored, counts are summed, of first places the least is kept.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// What a finding is of, and what its index counts. The numbers stand in journals.
enum class FindingOf : uint8_t {
  kHoleDigest = 0,      // raw CRC-64 of a hole as written
  kHoleChecksum = 1,    // raw CRC-32 of a hole as written
  kTensorDigest = 2,    // raw CRC-64 of a tensor's row-major bytes as written; by tensor of the catalog
  kRecordChecksum = 3,  // raw CRC-32 of a record of the input; by Plan::checks
  kDifferent = 4,       // elements of a copy that differ from the tensor; by Plan::compared
  kFirstDifferent = 5,  // the first of them, an element of the shard
  kRecordDigest = 6,    // raw CRC-64 of a record that has a digest; by Plan::checks
};

struct Finding {
  FindingOf of;
  uint32_t index;
  uint64_t value;
};

// Those of one task.
class Findings {
 public:
  void add(FindingOf of, uint32_t index, uint64_t value);
  void clear() { list_.clear(); }
  std::span<const Finding> all() const { return list_; }

 private:
  std::vector<Finding> list_;
};

// How a copy differs from the tensor it is of.
struct Difference {
  int64_t count = 0;
  int64_t first = -1;  // element of the shard
};

// All of them added up. `add` is thread-safe; the rest is asked for when all tasks are done.
class Totals {
 public:
  struct Wanted {
    bool hole_digests = true, hole_checksums = false, tensor_digests = false;
  };
  Totals(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, const Wanted& wanted);

  // False for a finding of nothing that is here: a journal can hold anything.
  bool add(std::span<const Finding> findings);

  uint64_t raw(FindingOf of, uint32_t index) const { return sums_[static_cast<size_t>(of)][index].load(); }
  uint64_t hole_digest(uint32_t hole) const;
  // Of a tensor that scattered holes hold.
  uint64_t tensor_digest(uint32_t tensor, int64_t bytes) const;
  // The CRC-32 of a range of the target's file from those of its holes.
  uint32_t checksum(const LateChecksum& late) const;
  Difference difference(uint32_t compared) const;
  // `zip.crc` or `digest.differs` of every record of the input whose bytes differ from its checksum.
  std::vector<Error> damaged_records() const;
  void throw_if_damaged() const;  // the first of them

 private:
  std::optional<Error> damage_of_digest(uint32_t check, const Record& record) const;

  const Catalog& catalog_;
  const TargetLayout& target_;
  const plan::Plan& plan_;
  std::vector<std::atomic<uint64_t>> sums_[7];  // by FindingOf
};

}  // namespace uckpt::exec
