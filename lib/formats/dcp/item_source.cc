#include "lib/formats/dcp/item_source.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

namespace {

constexpr int64_t kHeadSize = 2048, kTailSize = 2048;

}  // namespace

ItemSource::ItemSource(const ByteSource& file, int64_t offset, int64_t length)
    : file_(file), offset_(offset), length_(length) {
  head_ = file.read_range(offset, length <= kHeadSize + kTailSize ? length : kHeadSize);
  if (static_cast<int64_t>(head_.size()) < length)
    tail_ = file.read_range(offset + length - kTailSize, kTailSize);
}

void ItemSource::read_at(int64_t offset, std::span<uint8_t> out) const {
  const auto wanted = static_cast<int64_t>(out.size());
  if (!range_inside(offset, wanted, length_))
    throw refused("io.short_read",
                  cat("expected ", wanted, " bytes at byte ", offset, " of an item of ", length_, " bytes"))
        .in_file(name());
  const auto head = static_cast<int64_t>(head_.size()),
             tail_at = length_ - static_cast<int64_t>(tail_.size());
  if (offset + wanted <= head)
    std::copy_n(head_.begin() + offset, wanted, out.begin());
  else if (offset >= tail_at)
    std::copy_n(tail_.begin() + (offset - tail_at), wanted, out.begin());
  else
    file_.read_at(offset_ + offset, out);
}

}  // namespace uckpt::dcp
