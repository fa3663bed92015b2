// Fills ranges of the target from wherever their boxes lie in the input. One Gatherer a thread: it owns its
// buffers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// The checksums of input records, put together from the ranges that tasks read, in any order.
class ChecksumLedger {
 public:
  ChecksumLedger(const Catalog& catalog, const plan::Plan& plan);
  // These bytes of a record were read by a move. Records with a pass of their own are left to it.
  void add_from_move(uint32_t record, int64_t offset, ByteSpan bytes);
  void add_from_check(uint32_t check, int64_t offset, ByteSpan bytes);
  // Throws `zip.crc` for the first record whose bytes differ from its checksum; tells how many were right.
  int64_t verify() const;

 private:
  void add(uint32_t check, int64_t offset, ByteSpan bytes);
  const Catalog& catalog_;
  const plan::Plan& plan_;
  std::unique_ptr<std::atomic<uint32_t>[]> shares_;
};

// What was found of each compared copy.
struct Comparison {
  std::atomic<int64_t> different{0};
  std::atomic<int64_t> first{INT64_MAX};  // element index in the shard
};

class Gatherer {
 public:
  // `ledger` may be null: no checksums wanted. `staging` bounds the buffer for strided reads, in bytes.
  Gatherer(const Catalog& catalog, const plan::Plan& plan, ChecksumLedger* ledger, int64_t staging);

  // The bytes [begin, begin + out.size()) of a shard, in the tensor's own type. What no move fills is left as
  // it is. `checked`: the bytes read count for the checksums of the input (once each).
  void fill(uint32_t shard, int64_t begin, std::span<uint8_t> out, bool checked);
  // Compares the same range, already filled, with every other copy in the input.
  void compare(uint32_t shard, int64_t begin, ByteSpan filled, DType dtype, std::span<Comparison> results);
  // What is left to do to the same range once it is compared: the mean with other parts, factors, summands.
  void finish(const TargetShard& target, uint32_t shard, int64_t begin, std::span<uint8_t> filled,
              const Tensor& tensor, bool checked);
  // A range for a record's checksum.
  void check(const plan::CheckRead& read);

 private:
  struct Box {  // part of a move, with target offsets relative to the buffer
    int64_t src, dst;
    std::vector<plan::Loop> loops;  // the innermost last
  };
  Box box_of(const plan::Move& move, int64_t src, int64_t dst, std::span<const int64_t> counts) const;
  void gather(const plan::Move& move, Box box, uint8_t* out);
  void gather_strided(const plan::Move& move, std::span<const plan::Loop> loops, int64_t src, uint8_t* dst);
  void read(FileId file, int64_t offset, std::span<uint8_t> out) const;
  void compare_box(const plan::Move& move, const Box& box, ByteSpan filled, DType dtype, int64_t begin,
                   Comparison& result);

  const Catalog& catalog_;
  const plan::Plan& plan_;
  ChecksumLedger* const ledger_;
  bool checked_ = false;  // what is read now counts
  Bytes staging_, narrow_, wide_, addend_;
};

}  // namespace uckpt::exec
