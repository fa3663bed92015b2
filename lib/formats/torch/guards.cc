#include "lib/formats/torch/guards.h"

#include <zlib.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::torch {

std::string expansion_refusal(const TensorInfo& info, bool allow_expand) {
  constexpr int64_t kFactor = 16, kSmall = 64 << 20;
  int64_t moving = 1, span = 1;  // both bound the elements that the view touches
  for (size_t d = 0; d < info.shape.size(); ++d) {
    if (info.shape[d] == 0) return "";
    if (info.stride[d] == 0) continue;
    moving *= info.shape[d];  // both stay below the storage's size or numel, which were checked
    span += (info.shape[d] - 1) * info.stride[d];
  }
  const auto bytes = bytes_of(info.dtype, info.numel());
  const int64_t source = std::min(moving, span) * item_size(info.dtype);
  if (bytes && (allow_expand || *bytes <= kSmall || *bytes / kFactor <= source)) return "";
  return cat("tensor.expands: a view of ", human_bytes(static_cast<uint64_t>(source)), " expanded to ",
             bytes ? human_bytes(static_cast<uint64_t>(*bytes)) : "more than 64 bits can count",
             " (--allow-expand writes it)");
}

void check_crc(ByteSpan bytes, uint32_t expected, std::string_view member) {
  const auto found = static_cast<uint32_t>(::crc32_z(0, bytes.data(), bytes.size()));
  if (found == expected) return;
  throw refused("zip.crc", cat("expected checksum ", hex(expected, 8), ", found ", hex(found, 8),
                               ": the file was changed after it was written"))
      .in_member(member);
}

void check_crc(const ByteSource& file, const FileRecord& record) {
  if (!record.crc) return;
  try {
    check_crc(file.read_range(record.offset, record.size), *record.crc, record.name);
  } catch (Error& e) {
    throw e.in_file(file.name());
  }
}

}  // namespace uckpt::torch
