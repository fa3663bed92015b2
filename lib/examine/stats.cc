#include "lib/examine/stats.h"

#include <algorithm>
#include <mutex>

namespace uckpt {

namespace {

using kernels::BlockStatistics;
using kernels::kStatisticsBlock;

BlockStatistics blocks_of(const exec::ScanRange& range, DType dtype) {
  // Ranges are cut at powers of two of bytes, far larger than a block.
  if (range.begin % kStatisticsBlock != 0)
    throw trouble("internal", "a range does not begin with a block of statistics");
  BlockStatistics out;
  for (int64_t at = 0; at < range.count; at += kStatisticsBlock)
    out.add((range.begin + at) / kStatisticsBlock,
            kernels::statistics_of(range.bytes.data() + at * unit_size(dtype), dtype,
                                   std::min(kStatisticsBlock, range.count - at)));
  return out;
}

}  // namespace

std::vector<kernels::Statistics> statistics_of(const Opened& opened, bool check_crc,
                                               const exec::Buffers& buffers, Progress& progress,
                                               const StopFlag& stop) {
  const exec::WholeTensors whole =
      exec::whole_tensors(opened.catalog, opened.stored, {.check_crc = check_crc, .compare_copies = false});
  std::vector<BlockStatistics> of_stored(opened.stored.size());
  std::mutex mutex;
  const exec::Scanned found = exec::scan(
      whole, buffers, {"reading", false},
      [&] {
        return [&](const exec::ScanRange& range) {
          const BlockStatistics blocks = blocks_of(range, whole.layout.holes[range.at].dtype);
          const std::scoped_lock lock(mutex);
          of_stored[range.at].add(blocks);
        };
      },
      progress, stop);
  if (!found.damaged.empty()) throw found.damaged.front();
  std::vector<kernels::Statistics> out;
  for (const uint32_t stored : opened.stored_at) out.push_back(of_stored[stored].total());
  return out;
}

}  // namespace uckpt
