#include "lib/exec/executor.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/exec/filler.h"
#include "lib/exec/workers.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

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
  Totals& totals;
  const TensorDigests* digests;  // null: not wanted
};

class Worker {
 public:
  Worker(Run& run, const Buffers& buffers)
      : run_(run), filler_(run.catalog, run.target, run.plan, run.totals, run.digests, buffers) {}

  // Small holes that lie back to back in the file are written together.
  void copy(const Task& task) {
    const uint32_t file = run_.target.holes[task.first_hole].file;
    int64_t file_offset = 0;
    buffer_.clear();
    for (uint32_t h = task.first_hole; h <= task.last_hole; ++h) {
      const Hole& hole = run_.target.holes[h];
      const int64_t begin = task.first_hole == task.last_hole ? task.begin : 0,
                    end = task.first_hole == task.last_hole ? task.end : hole.count;
      if (begin == end) continue;
      const int64_t offset = hole.offset + begin * unit_size(hole.dtype);
      if (!buffer_.empty() && offset != file_offset + static_cast<int64_t>(buffer_.size())) {
        write(file, file_offset);
        buffer_.clear();
      }
      if (buffer_.empty()) file_offset = offset;
      const size_t at = buffer_.size();
      buffer_.resize(at + static_cast<size_t>((end - begin) * unit_size(hole.dtype)));
      filler_.fill(h, begin, end - begin, std::span(buffer_).subspan(at));
    }
    if (!buffer_.empty()) write(file, file_offset);
    finish();
  }

  void check(const plan::CheckRead& read) {
    filler_.check(read);
    run_.progress.advance(read.size);
    finish();
  }

 private:
  void write(uint32_t file, int64_t offset) {
    run_.output.write_at(file, offset, buffer_);
    const auto bytes = static_cast<int64_t>(buffer_.size());
    if (run_.options.start_writeback) run_.output.start_writeback(file, offset, bytes);
    run_.progress.advance(bytes);
  }

  // What a task found counts when its bytes are written.
  void finish() {
    run_.totals.add(filler_.findings().all());
    filler_.findings().clear();
  }

  Run& run_;
  Filler filler_;
  Bytes buffer_;
};

int64_t sum_of(const std::vector<plan::CheckRead>& reads) {
  int64_t sum = 0;
  for (const auto& r : reads) sum += r.size;
  return sum;
}

}  // namespace

Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, Output& output,
            const Buffers& buffers, const RunOptions& options, Progress& progress, const StopFlag& stop) {
  Totals totals(
      catalog, target, plan,
      {options.digests || options.tensor_digests, !target.checksums.empty(), options.tensor_digests});
  std::optional<TensorDigests> digests;
  if (options.tensor_digests) digests.emplace(catalog, target);
  Run shared{catalog, target, plan, output, options, progress, totals, digests ? &*digests : nullptr};

  const std::vector<Task> tasks = cut_tasks(catalog, target, plan, buffers);
  progress.begin("copying", plan.bytes_out + sum_of(plan.check_reads));
  run_workers(buffers.threads, tasks.size() + plan.check_reads.size(), stop, [&] {
    return [&tasks, &plan, worker = std::make_shared<Worker>(shared, buffers)](size_t i) {
      if (i < tasks.size()) {
        worker->copy(tasks[i]);
      } else {
        worker->check(plan.check_reads[i - tasks.size()]);
      }
    };
  });
  progress.end();

  const std::vector<Error> damaged = totals.damaged_records();
  if (!damaged.empty()) throw damaged.front();
  Outcome outcome;
  outcome.checksums_checked = static_cast<int64_t>(plan.checks.size());
  if (options.digests)
    for (uint32_t h = 0; h < target.holes.size(); ++h) outcome.digests.push_back(totals.hole_digest(h));
  if (digests) outcome.tensor_digests = digests->finish(totals);
  for (const LateChecksum& late : target.checksums) outcome.checksums.push_back(totals.checksum(late));
  for (uint32_t i = 0; i < plan.compared.size(); ++i) outcome.differences.push_back(totals.difference(i));
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
