// The digest of every logical tensor of a checkpoint: the same in every format and layout of one naming and
// type.
#pragma once

#include <string>
#include <vector>

#include "lib/convert/manifest.h"
#include "lib/examine/opened.h"

namespace uckpt {

enum class DigestKind : uint8_t { kCrc64, kSha256 };

// Of all its tensors, further names too. Checksums of the input are checked on the way.
std::vector<TensorSum> sum_tensors(const Opened& opened, DigestKind kind, const exec::Buffers& buffers,
                                   Progress& progress, const StopFlag& stop);

// The same sums from digests that are known already, parallel to `opened.stored`.
std::vector<TensorSum> sums_of(const Opened& opened, const std::vector<std::string>& digests);

}  // namespace uckpt
