// What is known only when all bytes are: digests and checksums, which have their places in the output.
#pragma once

#include <span>
#include <vector>

#include "lib/exec/executor.h"

namespace uckpt::exec {

// The places of all digests, also in files that a library made; holes are those of the whole layout.
std::vector<LateDigest> digest_places(const TargetLayout& target, const std::vector<Journal::Made>& made);

// Writes them there.
void write_late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                       const Outcome& outcome, Output& output);

}  // namespace uckpt::exec
