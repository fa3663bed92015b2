// Checks that the readers of torch files share: what a view may expand to, and a record's checksum.
#pragma once

#include <string>

#include "lib/formats/torch/torch_file.h"

namespace uckpt::torch {

// A small storage can be shown as a huge tensor by strides of 0: legal to see, rarely meant to be written.
// Why it is refused, or nothing. What 64 bits cannot count is never allowed.
std::string expansion_refusal(const TensorInfo& info, bool allow_expand);

// Throws `zip.crc` if the bytes of a member differ from its checksum.
void check_crc(ByteSpan bytes, uint32_t expected, std::string_view member);

// Reads the whole record (a small one) and checks it; nothing to do if it carries no checksum.
void check_crc(const ByteSource& file, const FileRecord& record);

}  // namespace uckpt::torch
