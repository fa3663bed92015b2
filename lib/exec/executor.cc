#include "lib/exec/executor.h"

#include <algorithm>
#include <atomic>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/exec/workers.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

namespace {

constexpr int64_t kTaskBytes = int64_t{1} << 20, kStridedBytes = int64_t{8} << 20,
                  kStagingBytes = int64_t{1} << 20;
constexpr int64_t kSmallest = int64_t{64} << 10;
constexpr uint32_t kMostHolesInTask = 4096;

}  // namespace

int64_t Buffers::total() const {
  // A worker holds the widest task twice (its bytes, and a copy to compare them with) and its staging.
  return threads * (2 * std::max(task_bytes, strided_bytes) + staging_bytes);
}

Buffers size_buffers(int threads, int64_t max_mem) {
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

std::vector<Task> cut_tasks(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
                            const Buffers& buffers) {
  std::vector<Task> tasks;
  const auto count = static_cast<uint32_t>(target.holes.size());
  const auto strided = [&](uint32_t hole) {
    for (uint32_t m = plan.first_move[hole]; m < plan.first_move[hole + 1]; ++m)
      if (!plan.moves[m].is_run()) return true;
    return false;
  };
  for (uint32_t hole = 0; hole < count;) {
    const int64_t bytes = target.holes[hole].bytes;
    if (bytes > buffers.task_bytes) {
      // A boundary never cuts an element: steps are multiples of every element size.
      const int64_t item = std::max(1, item_size(catalog.tensors[target.holes[hole].tensor].dtype));
      const int64_t step = round_up(strided(hole) ? buffers.strided_bytes : buffers.task_bytes, item);
      for (int64_t at = 0; at < bytes; at += step)
        tasks.push_back({hole, hole, at, std::min(at + step, bytes)});
      ++hole;
      continue;
    }
    uint32_t last = hole;
    int64_t sum = bytes;
    while (last + 1 < count && last - hole < kMostHolesInTask &&
           sum + target.holes[last + 1].bytes <= buffers.task_bytes) {
      sum += target.holes[++last].bytes;
    }
    tasks.push_back({hole, last, 0, target.holes[last].bytes});
    hole = last + 1;
  }
  return tasks;
}

namespace {

// What all workers share.
struct Run {
  const Catalog& catalog;
  const TargetLayout& target;
  const plan::Plan& plan;
  const Placement& placement;
  OutputFile& output;
  bool start_writeback;
  Progress& progress;
  std::vector<std::atomic<uint64_t>>& digests;
  std::span<Comparison> comparisons;
};

class Worker {
 public:
  Worker(Run& run, ChecksumLedger* ledger, const Buffers& buffers)
      : run_(run), gatherer_(run.catalog, run.plan, ledger, buffers.staging_bytes) {}

  void copy(const Task& task) {
    if (task.first_hole == task.last_hole) {
      fill(task.first_hole, task.begin, task.end - task.begin, 0);
      write(run_.placement.hole_offsets[task.first_hole] + task.begin, buffer_.size());
    } else {
      copy_group(task);
    }
  }

  void check(const plan::CheckRead& read) {
    gatherer_.check(read);
    run_.progress.advance(read.size);
  }

 private:
  // Small holes that lie back to back in the file are written together.
  void copy_group(const Task& task) {
    int64_t file_offset = 0;
    buffer_.clear();
    for (uint32_t hole = task.first_hole; hole <= task.last_hole; ++hole) {
      const int64_t offset = run_.placement.hole_offsets[hole], bytes = run_.target.holes[hole].bytes;
      if (bytes == 0) continue;
      if (!buffer_.empty() && offset != file_offset + static_cast<int64_t>(buffer_.size())) {
        write(file_offset, buffer_.size());
        buffer_.clear();
      }
      if (buffer_.empty()) file_offset = offset;
      fill(hole, 0, bytes, buffer_.size());
    }
    if (!buffer_.empty()) write(file_offset, buffer_.size());
  }

  void fill(uint32_t hole, int64_t begin, int64_t bytes, size_t at) {
    buffer_.resize(at + static_cast<size_t>(bytes));
    const std::span<uint8_t> range(buffer_.data() + at, static_cast<size_t>(bytes));
    gatherer_.fill(hole, begin, range);
    const Tensor& tensor = run_.catalog.tensors[run_.target.holes[hole].tensor];
    gatherer_.compare(hole, begin, range, tensor.dtype, run_.comparisons);
    gatherer_.finish(hole, begin, range, tensor);
    const int64_t after = run_.target.holes[hole].bytes - begin - bytes;
    run_.digests[hole].fetch_xor(
        kernels::Crc64::shift(kernels::crc64_raw(range), static_cast<uint64_t>(after)),
        std::memory_order_relaxed);
  }

  void write(int64_t offset, size_t bytes) {
    run_.output.write_at(offset, {buffer_.data(), bytes});
    if (run_.start_writeback) run_.output.start_writeback(offset, static_cast<int64_t>(bytes));
    run_.progress.advance(static_cast<int64_t>(bytes));
  }

  Run& run_;
  Gatherer gatherer_;
  Bytes buffer_;
};

int64_t sum_of(const std::vector<plan::CheckRead>& reads) {
  int64_t sum = 0;
  for (const auto& r : reads) sum += r.size;
  return sum;
}

}  // namespace

Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
            const Placement& placement, OutputFile& output, const Buffers& buffers, bool start_writeback,
            Progress& progress, const StopFlag& stop) {
  Outcome outcome;
  std::vector<std::atomic<uint64_t>> digests(target.holes.size());
  outcome.comparisons = std::make_unique<Comparison[]>(plan.compared.size());
  ChecksumLedger ledger(catalog, plan);
  ChecksumLedger* const checks = plan.check_of_record.empty() ? nullptr : &ledger;
  Run shared{catalog,   target,  plan,
             placement, output,  start_writeback,
             progress,  digests, {outcome.comparisons.get(), plan.compared.size()}};

  const std::vector<Task> tasks = cut_tasks(catalog, target, plan, buffers);
  progress.begin("copying", plan.bytes_out + sum_of(plan.check_reads));
  run_workers(buffers.threads, tasks.size() + plan.check_reads.size(), stop, [&] {
    return [&tasks, &plan, worker = std::make_shared<Worker>(shared, checks, buffers)](size_t i) {
      if (i < tasks.size()) {
        worker->copy(tasks[i]);
      } else {
        worker->check(plan.check_reads[i - tasks.size()]);
      }
    };
  });
  progress.end();

  if (checks != nullptr) outcome.checksums_checked = ledger.verify();
  for (size_t i = 0; i < digests.size(); ++i)
    outcome.digests.push_back(
        kernels::Crc64::finish(digests[i].load(), static_cast<uint64_t>(target.holes[i].bytes)));
  return outcome;
}

void verify(const TargetLayout& target, const Placement& placement, const Outcome& outcome,
            const OutputFile& output, const Buffers& buffers, Progress& progress, const StopFlag& stop) {
  int64_t total = 0;
  for (const Hole& h : target.holes) total += h.bytes;
  progress.begin("verifying", total);
  run_workers(buffers.threads, target.holes.size(), stop, [&] {
    return [&, buffer = Bytes(static_cast<size_t>(buffers.task_bytes))](size_t i) mutable {
      const int64_t bytes = target.holes[i].bytes;
      uint64_t raw = 0;
      for (int64_t at = 0; at < bytes;) {
        const auto n =
            static_cast<size_t>(std::min<int64_t>(bytes - at, static_cast<int64_t>(buffer.size())));
        output.read_at(placement.hole_offsets[i] + at, {buffer.data(), n});
        raw = kernels::Crc64::shift(raw, n) ^ kernels::crc64_raw({buffer.data(), n});
        at += static_cast<int64_t>(n);
        progress.advance(static_cast<int64_t>(n));
      }
      const uint64_t found = kernels::Crc64::finish(raw, static_cast<uint64_t>(bytes));
      if (found == outcome.digests[i]) return;
      throw refused("output.verify", cat("read back after writing: expected digest ",
                                         hex(outcome.digests[i], 16), ", found ", hex(found, 16)))
          .in_file(output.path())
          .in_tensor(target.holes[i].name);
    };
  });
  progress.end();
}

}  // namespace uckpt::exec
