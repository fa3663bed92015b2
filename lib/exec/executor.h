// Runs a plan: tasks of about 1 MiB of output, each read → buffer → write, on all cores, in bounded memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/exec/progress.h"
#include "lib/exec/tasks.h"
#include "lib/exec/tensor_digests.h"
#include "lib/io/output.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

struct RunOptions {
  bool start_writeback = false;  // the output will be synced
  bool digests = true;           // of every hole; else only what the layout's late fields need
  bool tensor_digests = false;   // of every logical tensor, however scattered; needs `digests`
};

struct Outcome {
  std::vector<uint64_t> digests;             // CRC-64 of each hole; empty where not asked for
  std::vector<uint32_t> checksums;           // CRC-32 of each TargetLayout::checksums
  std::vector<TensorDigest> tensor_digests;  // empty where not asked for
  std::vector<Difference> differences;       // one for each Plan::compared
  int64_t checksums_checked = 0;             // records of the input
};

// Makes the files of the layout at their full size, with all but the holes' bytes. Tells the places of the
// digests, and sets those of the holes in files that a library makes.
std::vector<LateDigest> preallocate(TargetLayout& target, Output& output);

// Fills every hole. Throws what a read or write throws, `zip.crc`, or a resumable error when stopped.
Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, Output& output,
            const Buffers& buffers, const RunOptions& options, Progress& progress, const StopFlag& stop);

// Writes what is known only now.
void write_late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                       const Outcome& outcome, Output& output);

// Reads the holes back and compares their digests. Throws `output.verify`.
void verify(const Catalog& catalog, const TargetLayout& target, const Outcome& outcome, const Output& output,
            const Buffers& buffers, Progress& progress, const StopFlag& stop);

}  // namespace uckpt::exec
