// Fills ranges of the target from wherever their boxes lie in the input. One Gatherer a thread: it owns its
// buffers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "lib/exec/findings.h"
#include "lib/kernels/crc.h"
#include "lib/kernels/elements.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

class Gatherer {
 public:
  // What it finds goes to `findings`. `staging` bounds the buffer for strided reads, in bytes.
  Gatherer(const Catalog& catalog, const plan::Plan& plan, Findings& findings, int64_t staging);

  // The bytes [begin, begin + out.size()) of a shard, in the tensor's own type. What no move fills is left as
  // it is. `checked`: the bytes read count for the checksums of the input (once each).
  void fill(uint32_t shard, int64_t begin, std::span<uint8_t> out, bool checked);
  // Compares the same range, already filled, with every other copy in the input.
  void compare(uint32_t shard, int64_t begin, ByteSpan filled, DType dtype);
  // What is left to do to the same range once it is compared: the mean with other parts, factors, summands.
  void finish(const TargetShard& target, uint32_t shard, int64_t begin, std::span<uint8_t> filled,
              const Tensor& tensor, bool checked);
  // A range for a record's checksum.
  void check(const plan::CheckRead& read);

 private:
  using Loops = std::vector<plan::Loop>;  // the innermost last
  struct Box {                            // part of a move, with target offsets relative to the buffer
    int64_t src = 0, dst = 0;
    Loops loops;
  };
  void set_box(Box& box, const plan::Move& move, int64_t src, int64_t dst,
               std::span<const int64_t> counts) const;
  void gather(const plan::Move& move, Box& box, uint8_t* out);  // may reorder the loops
  void gather_strided(const plan::Move& move, std::span<const plan::Loop> loops, int64_t src, uint8_t* dst);
  void read(FileId file, int64_t offset, std::span<uint8_t> out) const;
  void compare_box(const plan::Move& move, const Box& box, ByteSpan filled, DType dtype, int64_t begin);
  uint32_t check_of(const plan::Move& move) const;
  void add_to_record(uint32_t check, int64_t offset, ByteSpan bytes);
  // What `nest_` takes of the staging buffer, which in the file begins at `from` and has these loops.
  void add_staged_to_record(const plan::Move& move, std::span<const plan::Loop> loops, int64_t from);
  const kernels::Crc32Shift* shift_by(int64_t bytes);

  const Catalog& catalog_;
  const plan::Plan& plan_;
  Findings& findings_;
  bool checked_ = false;  // what is read now counts
  Bytes staging_, narrow_, wide_, addend_;
  // Used again for every move, so that none is allocated.
  Box box_, dense_;
  std::vector<kernels::CopyLoop> nest_, widen_;
  static constexpr size_t kMostShifts = 64;
  std::unordered_map<int64_t, std::unique_ptr<kernels::Crc32Shift>> shifts_;
  std::vector<const kernels::Crc32Shift*> loop_shifts_;
};

}  // namespace uckpt::exec
