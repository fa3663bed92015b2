#include "lib/exec/executor.h"

#include <algorithm>
#include <atomic>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/exec/workers.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

namespace {

constexpr int64_t kTaskBytes = int64_t{1} << 20, kStridedBytes = int64_t{8} << 20,
                  kStagingBytes = int64_t{1} << 20;
constexpr int64_t kSmallest = int64_t{32} << 10;
constexpr uint32_t kMostHolesInTask = 4096;

}  // namespace

int64_t Buffers::total() const {
  // A worker holds the widest task three times (its bytes, those before a cast, and a copy to compare them
  // with) and its staging.
  return threads * (3 * std::max(task_bytes, strided_bytes) + staging_bytes);
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

std::vector<LateDigest> preallocate(TargetLayout& target, Output& output) {
  std::vector<LateDigest> digests;
  size_t next = 0;
  for (uint32_t f = 0; f < target.files.size(); ++f) {
    TargetFile& file = target.files[f];
    const std::string path = output.add(file.name);
    const size_t first = next;
    while (next < target.holes.size() && target.holes[next].file == f) ++next;
    if (file.make) {
      const MadeFile made = file.make(path);
      file.size = made.size;
      for (size_t h = first; h < next; ++h) target.holes[h].offset = made.hole_offsets[h - first];
      for (LateDigest d : made.digests) {
        d.hole += static_cast<uint32_t>(first);
        digests.push_back(d);
      }
    }
    output.preallocate(f, file.size);
    for (const FixedBytes& fixed : file.fixed) output.write_at(f, fixed.offset, fixed.bytes);
  }
  return digests;
}

namespace {

// What all workers share.
struct Run {
  const Catalog& catalog;
  const TargetLayout& target;
  const plan::Plan& plan;
  Output& output;
  const RunOptions& options;
  Progress& progress;
  std::vector<std::atomic<uint64_t>>& digests;    // raw, by hole; empty: not wanted
  std::vector<std::atomic<uint32_t>>& checksums;  // raw, by hole; empty: not wanted
  std::span<Comparison> comparisons;
};

class Worker {
 public:
  Worker(Run& run, ChecksumLedger* ledger, const Buffers& buffers)
      : run_(run), gatherer_(run.catalog, run.plan, ledger, buffers.staging_bytes) {}

  void copy(const Task& task) {
    if (task.first_hole == task.last_hole) {
      const Hole& hole = run_.target.holes[task.first_hole];
      buffer_.clear();
      fill(task.first_hole, task.begin, task.end - task.begin);
      write(hole.file, hole.offset + task.begin * unit_size(hole.dtype));
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
    const uint32_t file = run_.target.holes[task.first_hole].file;
    int64_t file_offset = 0;
    buffer_.clear();
    for (uint32_t h = task.first_hole; h <= task.last_hole; ++h) {
      const Hole& hole = run_.target.holes[h];
      if (hole.count == 0) continue;
      if (!buffer_.empty() && hole.offset != file_offset + static_cast<int64_t>(buffer_.size())) {
        write(file, file_offset);
        buffer_.clear();
      }
      if (buffer_.empty()) file_offset = hole.offset;
      fill(h, 0, hole.count);
    }
    if (!buffer_.empty()) write(file, file_offset);
  }

  // Appends the range of a hole to the buffer, as it is written.
  void fill(uint32_t h, int64_t begin, int64_t count) {
    const Hole& hole = run_.target.holes[h];
    const TargetShard& shard = run_.target.shards[hole.shard];
    const Tensor& tensor = run_.catalog.tensors[shard.tensor];
    const size_t at = buffer_.size();
    buffer_.resize(at + static_cast<size_t>(count * unit_size(hole.dtype)));
    const std::span<uint8_t> written = std::span(buffer_).subspan(at);
    if (hole.dtype == tensor.dtype) {
      gather(hole, shard, tensor, begin, written);
    } else {
      uncast_.resize(static_cast<size_t>(count * unit_size(tensor.dtype)));
      gather(hole, shard, tensor, begin, uncast_);
      kernels::cast(uncast_.data(), tensor.dtype, written.data(), hole.dtype, count);
    }
    add_checksums(h, (hole.count - begin - count) * unit_size(hole.dtype), written);
  }

  void gather(const Hole& hole, const TargetShard& shard, const Tensor& tensor, int64_t begin,
              std::span<uint8_t> out) {
    const bool first_time = !hole.is_copy;
    const int64_t from = (hole.first + begin) * unit_size(tensor.dtype);
    if (shard.is_padded) std::fill(out.begin(), out.end(), uint8_t{0});
    gatherer_.fill(hole.shard, from, out, first_time);
    if (first_time) gatherer_.compare(hole.shard, from, out, tensor.dtype, run_.comparisons);
    gatherer_.finish(shard, hole.shard, from, out, tensor, first_time);
  }

  void add_checksums(uint32_t hole, int64_t after, ByteSpan written) {
    const auto bytes_after = static_cast<uint64_t>(after);
    if (!run_.digests.empty())
      run_.digests[hole].fetch_xor(kernels::Crc64::shift(kernels::crc64_raw(written), bytes_after),
                                   std::memory_order_relaxed);
    if (!run_.checksums.empty())
      run_.checksums[hole].fetch_xor(kernels::Crc32::shift(kernels::crc32_raw(written), bytes_after),
                                     std::memory_order_relaxed);
  }

  void write(uint32_t file, int64_t offset) {
    run_.output.write_at(file, offset, buffer_);
    const auto bytes = static_cast<int64_t>(buffer_.size());
    if (run_.options.start_writeback) run_.output.start_writeback(file, offset, bytes);
    run_.progress.advance(bytes);
  }

  Run& run_;
  Gatherer gatherer_;
  Bytes buffer_, uncast_;
};

int64_t sum_of(const std::vector<plan::CheckRead>& reads) {
  int64_t sum = 0;
  for (const auto& r : reads) sum += r.size;
  return sum;
}

// The CRC-32 of a range from those of its holes; what lies between them is zeros, which add nothing.
uint32_t joined_checksum(const TargetLayout& target, const LateChecksum& late,
                         const std::vector<std::atomic<uint32_t>>& of_holes) {
  uint32_t raw = 0;
  for (uint32_t h = late.first_hole; h < late.first_hole + late.holes; ++h) {
    const Hole& hole = target.holes[h];
    const int64_t after = late.offset + late.size - hole.offset - hole.bytes();
    if (hole.count > 0) raw ^= kernels::Crc32::shift(of_holes[h].load(), static_cast<uint64_t>(after));
  }
  return kernels::Crc32::finish(raw, static_cast<uint64_t>(late.size));
}

}  // namespace

Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, Output& output,
            const Buffers& buffers, const RunOptions& options, Progress& progress, const StopFlag& stop) {
  Outcome outcome;
  std::vector<std::atomic<uint64_t>> digests(options.digests ? target.holes.size() : 0);
  std::vector<std::atomic<uint32_t>> checksums(target.checksums.empty() ? 0 : target.holes.size());
  outcome.comparisons = std::make_unique<Comparison[]>(plan.compared.size());
  ChecksumLedger ledger(catalog, plan);
  ChecksumLedger* const checks = plan.check_of_record.empty() ? nullptr : &ledger;
  Run shared{catalog, target,    plan,
             output,  options,   progress,
             digests, checksums, {outcome.comparisons.get(), plan.compared.size()}};

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
        kernels::Crc64::finish(digests[i].load(), static_cast<uint64_t>(target.holes[i].bytes())));
  for (const LateChecksum& late : target.checksums)
    outcome.checksums.push_back(joined_checksum(target, late, checksums));
  return outcome;
}

void write_late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                       const Outcome& outcome, Output& output) {
  for (const LateDigest& late : digests) {
    uint8_t bytes[8];
    store_le<uint64_t>(bytes, outcome.digests[late.hole]);
    output.write_at(target.holes[late.hole].file, late.offset, bytes);
  }
  for (size_t i = 0; i < target.checksums.size(); ++i) {
    uint8_t bytes[4];
    store_le<uint32_t>(bytes, outcome.checksums[i]);
    for (const int64_t place : target.checksums[i].places)
      output.write_at(target.checksums[i].file, place, bytes);
  }
}

void verify(const Catalog& catalog, const TargetLayout& target, const Outcome& outcome, const Output& output,
            const Buffers& buffers, Progress& progress, const StopFlag& stop) {
  int64_t total = 0;
  for (const Hole& h : target.holes) total += h.bytes();
  progress.begin("verifying", total);
  run_workers(buffers.threads, target.holes.size(), stop, [&] {
    return [&, buffer = Bytes(static_cast<size_t>(buffers.task_bytes))](size_t i) mutable {
      const Hole& hole = target.holes[i];
      const int64_t bytes = hole.bytes();
      uint64_t raw = 0;
      for (int64_t at = 0; at < bytes;) {
        const auto n =
            static_cast<size_t>(std::min<int64_t>(bytes - at, static_cast<int64_t>(buffer.size())));
        output.read_at(hole.file, hole.offset + at, {buffer.data(), n});
        raw = kernels::Crc64::shift(raw, n) ^ kernels::crc64_raw({buffer.data(), n});
        at += static_cast<int64_t>(n);
        progress.advance(static_cast<int64_t>(n));
      }
      const uint64_t found = kernels::Crc64::finish(raw, static_cast<uint64_t>(bytes));
      if (found == outcome.digests[i]) return;
      throw refused("output.verify", cat("read back after writing: expected digest ",
                                         hex(outcome.digests[i], 16), ", found ", hex(found, 16)))
          .in_file(output.path())
          .in_tensor(target.tensor_of(catalog, hole).path());
    };
  });
  progress.end();
}

}  // namespace uckpt::exec
