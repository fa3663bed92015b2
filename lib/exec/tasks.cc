#include "lib/exec/tasks.h"

#include <unistd.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/exec/workers.h"

namespace uckpt::exec {

namespace {

constexpr int64_t kTaskBytes = int64_t{1} << 20, kStridedBytes = int64_t{8} << 20,
                  kStagingBytes = int64_t{1} << 20;
constexpr int64_t kSmallest = int64_t{32} << 10;
constexpr uint32_t kMostHolesInTask = 4096;

int64_t default_max_mem() {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)),
             page = static_cast<int64_t>(::sysconf(_SC_PAGE_SIZE));
  return pages * page / 4;
}

}  // namespace

int64_t Buffers::total() const {
  // A worker holds the widest task three times (its bytes, those before a cast, and a copy to compare them
  // with) and its staging.
  return threads * (3 * std::max(task_bytes, strided_bytes) + staging_bytes);
}

Buffers size_buffers(int threads, int64_t max_mem) {
  if (threads == 0) threads = default_threads();
  if (max_mem == 0) max_mem = default_max_mem();
  Buffers b{threads, kTaskBytes, kStridedBytes, kStagingBytes};
  while (b.total() > max_mem && b.strided_bytes > kSmallest) b.strided_bytes /= 2;
  b.task_bytes = std::min(b.task_bytes, b.strided_bytes);
  while (b.total() > max_mem && b.staging_bytes > kSmallest) b.staging_bytes /= 2;
  if (b.total() > max_mem) {
    throw trouble("limit.max_mem", cat("--max-mem is too small for ", threads, " threads: expected at least ",
                                       human_bytes(static_cast<uint64_t>(b.total()))))
        .hint("use fewer threads (-j) or more memory");
  }
  return b;
}

int64_t bytes_to_do(const plan::Plan& plan) {
  int64_t sum = plan.bytes_out;
  for (const plan::CheckRead& read : plan.check_reads) sum += read.size;
  return sum;
}

std::vector<Task> cut_tasks(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
                            const Buffers& buffers) {
  std::vector<Task> tasks;
  const auto count = static_cast<uint32_t>(target.holes.size());
  std::vector<bool> strided(target.shards.size());
  for (const plan::Move& m : plan.moves)
    if (!m.is_run()) strided[m.shard] = true;
  // Bytes that a task of these units holds: of the wider of the types read and written.
  const auto item_of = [&](const Hole& h) {
    return std::max(unit_size(target.tensor_of(catalog, h).dtype), unit_size(h.dtype));
  };
  for (uint32_t first = 0; first < count;) {
    const Hole& hole = target.holes[first];
    const int64_t item = item_of(hole);
    if (hole.count * item > buffers.task_bytes) {
      const int64_t step =
          std::max<int64_t>(1, (strided[hole.shard] ? buffers.strided_bytes : buffers.task_bytes) / item);
      for (int64_t at = 0; at < hole.count; at += step)
        tasks.push_back({first, first, at, std::min(at + step, hole.count)});
      ++first;
      continue;
    }
    uint32_t last = first;
    int64_t sum = hole.count * item;
    while (last + 1 < count && last - first < kMostHolesInTask && target.holes[last + 1].file == hole.file) {
      const Hole& next = target.holes[last + 1];
      if (sum + next.count * item_of(next) > buffers.task_bytes) break;
      sum += next.count * item_of(next);
      ++last;
    }
    tasks.push_back({first, last, 0, target.holes[last].count});
    first = last + 1;
  }
  return tasks;
}

}  // namespace uckpt::exec
