// The plan: every copy that makes the output, proved complete before a byte moves.
//
//   pieces of the source  ⨝  pieces of the target  =  moves          (box ∩ box → one strided copy)
//
// A move is a loop nest, never a list of runs; runs exist only while a task runs. `make_plan` proves that the
// source's pieces tile every tensor, that the target's shards have every element of it, and that every byte
// of every hole is written exactly once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/base/function_ref.h"
#include "lib/tensor/catalog.h"
#include "lib/tensor/target.h"

namespace uckpt::plan {

struct Loop {
  int64_t count;
  int64_t src_stride, dst_stride;  // bytes
};

// One box of one source piece that goes to one box of a shard, both in elements of the tensor's own type.
// Loops are ordered by falling target stride; the innermost is `count` elements with the given byte strides.
struct Move {
  int64_t src_offset;  // bytes in the file
  int64_t dst_offset;  // bytes in the shard
  int64_t count;       // innermost loop
  int64_t src_step, dst_step;
  FileId file;
  uint32_t record;
  uint32_t shard;
  uint32_t loops_at;           // index into Plan::loops
  uint8_t loops;               // outer loops; 0 for a plain run
  uint8_t flags;               // PieceFlags
  uint8_t src_item, dst_item;  // bytes of an element; they differ only in compares
  bool is_copy;                // of elements that other moves carry, too
  DType src_dtype;
  uint32_t compare;  // index into Plan::compared, or kNoCompare for a copy; of an addend which one it is
  // Back to back on both sides?
  bool is_run() const { return loops == 0 && src_step == src_item && dst_step == dst_item; }
};
inline constexpr uint32_t kNoCompare = 0xffffffff;

// A copy in the input that is read and compared with the tensor, not written.
struct Compared {
  uint32_t tensor;
  uint32_t copy;  // index into Tensor::copies
};

// A checksummed record of the input, and how its checksum comes about: from the moves that read it (each byte
// once), or from a pass of its own over the whole record.
struct RecordCheck {
  uint32_t record;
  bool own_pass;
};

// A range of a record that no move reads and its checksum needs; or all of it, piece by piece, in an own
// pass.
struct CheckRead {
  uint32_t check;  // index into Plan::checks
  int64_t offset;  // bytes in the file
  int64_t size;
};

struct PlanOptions {
  bool check_crc = true;
  bool check_digests = true;  // too, where checksums are checked: those of tensors that the input keeps
  bool compare_copies = true;
};

struct Plan {
  std::vector<Move> moves;           // sorted by shard, then target offset
  std::vector<uint32_t> first_move;  // of each shard; one more entry than shards
  std::vector<bool> sequential;      // of each shard: its moves follow each other without interleaving
  std::vector<Move> compares;        // sorted likewise
  std::vector<uint32_t> first_compare;
  std::vector<Compared> compared;
  std::vector<Move> addends;  // sorted likewise; Move::compare tells which of Tensor::averaged_with
  std::vector<uint32_t> first_addend;
  std::vector<Loop> loops;
  std::vector<RecordCheck> checks;
  std::vector<uint32_t> check_of_record;  // index into checks, or kNoRecord
  std::vector<CheckRead> check_reads;

  int64_t bytes_in = 0;   // read for moves, compares and checks
  int64_t bytes_out = 0;  // of all holes
  int64_t bytes_compared = 0;
  int64_t metadata_bytes() const;  // what the plan itself takes in memory
};

// Throws Error (`plan.hole`, `plan.overlap`, `plan.factoring`) naming the tensor that cannot be covered, and
// `plan.target` where the target is not laid out whole.
Plan make_plan(const Catalog& catalog, const TargetLayout& target, const PlanOptions& options);

// Calls `box(src_offset, dst_offset, counts)` for the part of a move that lies in the target bytes [begin,
// end): as few boxes as there are. `counts` has one entry per loop plus the innermost count. An element
// belongs to the range its first byte lies in: ranges begin and end between elements.
using BoxVisitor = FunctionRef<void(int64_t src, int64_t dst, std::span<const int64_t> counts)>;
void clip(const Plan& plan, const Move& move, int64_t begin, int64_t end, const BoxVisitor& visit);

// The half-open range of target bytes between a move's first and last byte.
struct ByteRange {
  int64_t begin, end;
};
ByteRange target_range(const Plan& plan, const Move& move);

}  // namespace uckpt::plan
