#include "lib/exec/lane_use.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/exec/copy_rules.h"
#include "lib/io/direct.h"
#include "lib/io/input.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

using kernels::Crc32;
using kernels::Crc64;
using kernels::Region;

int64_t LaneUse::room() const { return std::min(kStagingBytes, static_cast<int64_t>(lane_.input().size())); }

int64_t LaneUse::stage(int64_t bytes, int64_t alignment) {
  if (lane_.direct({Region::kInput}) != nullptr) return 0;
  int64_t at = round_up(used_, alignment);
  if (at + bytes > static_cast<int64_t>(lane_.input().size())) {
    settle();
    at = 0;
  }
  used_ = at + bytes;
  return at;
}

// With the pages around them, which a file's end must not cut.
std::optional<int64_t> LaneUse::read_direct(const Catalog& catalog, FileId file, int64_t offset,
                                            int64_t bytes) {
  if (direct_ == nullptr || file == kLiteral || bytes < kLeastDirect) return std::nullopt;
  const int64_t before = offset % kPageBytes, pages = round_up(before + bytes, kPageBytes);
  if (pages > static_cast<int64_t>(lane_.input().size()) ||
      !range_inside(offset - before, pages, catalog.files[file]->size()))
    return std::nullopt;
  const kernels::DirectFile* const from = direct_->input(file);
  if (from == nullptr) return std::nullopt;
  const int64_t at = stage(pages, kPageBytes);
  if (!lane_.read_direct(*from, offset - before, at, pages)) return std::nullopt;
  direct_->add(bytes);
  return at + before;
}

std::span<uint8_t> LaneUse::staged(int64_t at, int64_t bytes) const {
  return lane_.input().subspan(static_cast<size_t>(at), static_cast<size_t>(bytes));
}

void LaneUse::await_crc(FindingOf of, uint32_t index, int result, int64_t bytes_after) {
  await({of, false, index, result, bytes_after});
}

void LaneUse::await_differences(uint32_t compared, int result, int64_t first, bool in_a_row) {
  await({FindingOf::kDifferent, in_a_row, compared, result, first});
}

void LaneUse::await(const Owed& owed) {
  owed_.push_back(owed);
  if (owed_.size() == kernels::kMostResults) settle();
}

void LaneUse::settle() {
  lane_.wait();
  used_ = 0;
  for (const Owed& owed : owed_) settle(owed);
  owed_.clear();
}

void LaneUse::settle(const Owed& owed) {
  const auto after = static_cast<uint64_t>(owed.place);
  if (owed.of == FindingOf::kDifferent) {
    const kernels::Differences found = lane_.differences(owed.result);
    if (found.count == 0) return;
    const int64_t first = owed.place + (owed.in_a_row ? found.first : 0);
    findings_.add(FindingOf::kDifferent, owed.index, static_cast<uint64_t>(found.count));
    findings_.add(FindingOf::kFirstDifferent, owed.index, static_cast<uint64_t>(first));
  } else if (owed.of != FindingOf::kHoleDigest && owed.of != FindingOf::kRecordDigest) {
    const auto raw = static_cast<uint32_t>(lane_.crc(owed.result));
    findings_.add(owed.of, owed.index, Crc32::shift(raw, after));
  } else {
    findings_.add(owed.of, owed.index, Crc64::shift(lane_.crc(owed.result), after));
  }
}

}  // namespace uckpt::exec
