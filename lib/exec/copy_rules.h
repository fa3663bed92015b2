// How bytes are moved best, by the shape of the copy. One table; tests/bench/copy_shapes.cc measures it.
//
// Common to all: blocks are reserved first (fallocate), then each task reads into its own buffers and writes
// with one call; where the output is synced, writeback begins behind each write. Never a mapped output, never
// a write for each run; short runs that lie far apart are copied out of a mapped input.
#pragma once

#include <cstdint>

namespace uckpt::exec {

enum class CopyShape : uint8_t {
  kDense,       // runs, and shards by rows or columns: a task's input lies as close together as its output
  kTransposed,  // neighbours in the output lie far apart in the input
  kDirect,      // dense, and past the page cache (--direct)
};

struct CopyRule {
  int64_t task_bytes;  // of output that a task fills, at most
  int64_t run_bytes;   // as wide as it takes for one read to bring so many; 0: always the most
};

// A dense task stays in the second cache: 256 KiB to 8 MiB are alike, 16 MiB lose. A transposed one reads a
// short run from every row of its input: the wider the task, the longer the run; runs of a few cache lines
// are enough, and 4 to 8 MiB best. Past the page cache every write waits for the disk, so fewer and larger
// ones.
constexpr CopyRule copy_rule(CopyShape shape) {
  constexpr int64_t kMi = int64_t{1} << 20;
  switch (shape) {
    case CopyShape::kDense:
      return {1 * kMi, 0};
    case CopyShape::kTransposed:
      return {8 * kMi, 256};
    case CopyShape::kDirect:
      break;
  }
  return {4 * kMi, 0};
}

// What one read brings of an input that is not one run.
inline constexpr int64_t kStagingBytes = int64_t{1} << 20;

// A device reads and writes no less than that itself, since each time is a call that waits for the disk. Not
// measured.
inline constexpr int64_t kLeastDirect = int64_t{64} << 10;

}  // namespace uckpt::exec
