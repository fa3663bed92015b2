// Runs a plan: tasks of about 1 MiB of output, each read → buffer → write, on all cores, in bounded memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/exec/device_use.h"
#include "lib/exec/journal.h"
#include "lib/exec/progress.h"
#include "lib/exec/tasks.h"
#include "lib/exec/tensor_digests.h"
#include "lib/io/output.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

struct RunOptions {
  bool start_writeback = false;       // the output will be synced
  bool digests = true;                // of every hole; else only what the layout's late fields need
  bool tensor_digests = false;        // of every logical tensor, however scattered; needs `digests`
  const DeviceUse* device = nullptr;  // fills some of the holes; null: the CPU fills all
  Journal* journal = nullptr;         // what is finished goes there, and what is there counts as finished
};

struct Outcome {
  std::vector<uint64_t> digests;             // CRC-64 of each hole; empty where not asked for
  std::vector<uint32_t> checksums;           // CRC-32 of each TargetLayout::checksums
  std::vector<TensorDigest> tensor_digests;  // empty where not asked for
  std::vector<Difference> differences;       // one for each Plan::compared
  int64_t checksums_checked = 0;             // records of the input
  int64_t continued = 0;                     // bytes of output that an interrupted run had written
  int64_t on_device = 0;                     // bytes that a device filled
  int64_t direct = 0;                        // bytes that it read and wrote itself, past the host's memory
  std::string device_failure;  // why the CPU did without it from some task on; empty: it did not
  std::string direct_failure;  // why it read and wrote nothing itself from then on; likewise
};

// Makes the files of the layout at their full size, with all but the holes' bytes. Tells where everything
// lies in those that a library makes, and sets the places of their holes.
std::vector<Journal::Made> preallocate(TargetLayout& target, Output& output, int threads);

// Do the files of an interrupted run lie at `temporary` as its journal says?
bool can_continue(const TargetLayout& target, const Journal& journal, const std::string& temporary);
// Opens them instead.
void reopen(TargetLayout& target, Output& output, const std::vector<Journal::Made>& made);

// Fills every hole. Throws what a read or write throws, `zip.crc`, or a resumable error when stopped.
Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, Output& output,
            const Buffers& buffers, const RunOptions& options, Progress& progress, const StopFlag& stop);

// Reads the holes back and compares their digests. Throws `output.verify`.
void verify(const Catalog& catalog, const TargetLayout& target, const Outcome& outcome, const Output& output,
            const Buffers& buffers, Progress& progress, const StopFlag& stop);

}  // namespace uckpt::exec
