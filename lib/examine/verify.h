// Is a checkpoint as it was written? Its structure, every checksum and digest that it carries, its copies of
// one tensor against each other, and, where that is asked for, its tensors against a manifest or another
// checkpoint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/examine/opened.h"

namespace uckpt {

struct VerifyOptions {
  ReadOptions read;
  std::string against;  // a manifest, or a checkpoint in any layout; empty: nothing
  double sample = 1;    // of the bytes, tensor by tensor; 1: all
  uint64_t seed = 0;    // which ones
};

struct VerifyReport {
  int64_t tensors = 0, of_tensors = 0, bytes = 0;
  int64_t checksums = 0, digests = 0, copies = 0, against = 0;  // that were looked at
  std::vector<Error> problems;                                  // all that differs, each names its place
  std::vector<std::string> warnings;
};

// Throws what opening throws (a damaged structure is refused there), and what a read throws.
VerifyReport verify_checkpoint(const std::string& path, const VerifyOptions& options, Progress& progress,
                               const StopFlag& stop);

}  // namespace uckpt
