// Fills ranges of the target, in the memory of a lane, from wherever their boxes lie in the input. One
// Gatherer a lane.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "lib/exec/lane_use.h"
#include "lib/kernels/crc.h"
#include "lib/kernels/lane.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// Bytes of a lane's memory.
struct Range {
  kernels::At at;
  int64_t bytes;
};

class Gatherer {
 public:
  Gatherer(const Catalog& catalog, const plan::Plan& plan, LaneUse& lane, Findings& findings);

  // The bytes of a shard from `begin` on, counted in the tensor's own type and made elements of `dtype`. What
  // no move fills is left as it is. `checked`: the bytes read count for the checksums of the input (once
  // each).
  void fill(uint32_t shard, int64_t begin, int64_t bytes, kernels::At out, DType dtype, bool checked);
  // Compares such a range, filled with elements of the tensor's type, with every other copy in the input.
  void compare(uint32_t shard, int64_t begin, const Range& filled, DType dtype);
  // What is left to do to the same range once it is compared: the mean with other parts, factors, summands.
  void finish(const TargetShard& target, uint32_t shard, int64_t begin, const Range& filled,
              const Tensor& tensor, bool checked);
  // Is there nothing else to do to elements of this shard?
  bool is_only_filled(const TargetShard& target, uint32_t shard, const Tensor& tensor) const;
  // The raw CRC-32 or CRC-64 of a range just filled, where it came of the records' checks by the way.
  std::optional<uint32_t> crc32_of(const Range& filled) const;
  std::optional<uint64_t> crc64_of(const Range& filled) const;
  // A range for a record's checksum.
  void check(const plan::CheckRead& read);

 private:
  using Loops = std::vector<plan::Loop>;  // the innermost last
  template <class Shift>
  struct CrcRuns {  // used again for every move, so that none is allocated
    std::unordered_map<int64_t, std::unique_ptr<Shift>> shifts;
    std::vector<kernels::CrcLoop<Shift>> loops;
  };
  struct Box {  // part of a move, with target offsets relative to the buffer
    int64_t src = 0, dst = 0;
    Loops loops;
  };
  void set_box(Box& box, const plan::Move& move, int64_t src, int64_t dst,
               std::span<const int64_t> counts) const;
  void gather(const plan::Move& move, Box& box, kernels::At out, DType dtype);  // may reorder the loops
  void gather_strided(const plan::Move& move, std::span<const plan::Loop> loops, int64_t src, kernels::At dst,
                      DType dtype);
  void read(FileId file, int64_t offset, std::span<uint8_t> out) const;
  void compare_box(const plan::Move& move, const Box& box, const Range& filled, DType dtype, int64_t begin);
  uint32_t check_of(const plan::Move& move) const;
  // The same bytes of a file for `nest_`, by the device itself, with their check on the way; nothing: it
  // cannot.
  std::optional<int64_t> read_direct(const plan::Move& move, std::span<const plan::Loop> loops, int64_t from,
                                     int64_t bytes);
  const Record& record_of(uint32_t check) const { return catalog_.records[plan_.checks[check].record]; }
  uint64_t add_to_record(uint32_t check, int64_t offset, ByteSpan bytes);  // their raw CRC
  // Takes the raw CRC of so many bytes that go on where those before them end.
  void go_on_summing(const Record& record, uint64_t raw, int64_t bytes);
  bool is_summed(const Range& filled) const;
  // What `nest_` takes of the bytes staged, which in the file begin at `from` and have these loops.
  void add_staged_to_record(const plan::Move& move, std::span<const plan::Loop> loops, int64_t from,
                            const uint8_t* staged);
  // Of what the runs of `loops` in the staged bytes add to a record's checksum, seen from the last one's end.
  template <class Shift>
  typename Shift::Raw crc_of_staged(std::span<const plan::Loop> loops, const uint8_t* staged, int64_t run);

  const Catalog& catalog_;
  const plan::Plan& plan_;
  LaneUse& lane_;
  Findings& findings_;
  bool checked_ = false;  // what is read now counts
  Range summed_{};        // what `fill` has filled from its first byte on and knows the raw CRC of
  uint64_t crc_ = 0;      // this one
  bool is_crc64_ = false;
  // Used again for every move, so that none is allocated.
  Box box_, dense_;
  std::vector<kernels::CopyLoop> nest_, widen_;
  static constexpr size_t kMostShifts = 64;
  std::tuple<CrcRuns<kernels::Crc32Shift>, CrcRuns<kernels::Crc64Shift>> runs_;
};

}  // namespace uckpt::exec
