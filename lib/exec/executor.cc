#include "lib/exec/executor.h"

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "lib/base/bytes.h"
#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/exec/holes.h"
#include "lib/exec/task_queues.h"
#include "lib/exec/worker.h"
#include "lib/exec/workers.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

namespace {

void place_holes(TargetLayout& target, const Journal::Made& made) {
  target.files[made.file].size = made.made.size;
  const auto [first, last] = holes_of(target, made.file);
  for (uint32_t h = first; h < last; ++h) target.holes[h].offset = made.made.hole_offsets[h - first];
}

// Small bytes that lie back to back are written together.
void write_fixed(std::span<const FixedBytes> fixed, uint32_t file, Output& output, Bytes& buffer) {
  constexpr size_t kTogether = size_t{64} << 10;
  for (size_t i = 0; i < fixed.size();) {
    const size_t first = i;
    const int64_t offset = fixed[first].offset;
    buffer.clear();
    for (; i < fixed.size() && buffer.size() + fixed[i].bytes.size() <= kTogether &&
           fixed[i].offset == offset + static_cast<int64_t>(buffer.size());
         ++i)
      buffer.insert(buffer.end(), fixed[i].bytes.begin(), fixed[i].bytes.end());
    const bool is_large = i == first;
    output.write_at(file, offset, is_large ? ByteSpan(fixed[i++].bytes) : ByteSpan(buffer));
  }
}

}  // namespace

std::vector<Journal::Made> preallocate(TargetLayout& target, Output& output, int threads) {
  enter_phase("preallocate");
  std::vector<Journal::Made> made;
  for (uint32_t f = 0; f < target.files.size(); ++f) {
    TargetFile& file = target.files[f];
    const std::string path = output.add(file.name);
    if (file.make) {
      made.push_back({f, file.make(path)});
      place_holes(target, made.back());
    }
  }
  const StopFlag never{false};
  run_workers(threads, target.files.size(), never, [&] {
    return [&, buffer = Bytes()](size_t f) mutable {
      output.preallocate(static_cast<uint32_t>(f), target.files[f].size);
      write_fixed(target.files[f].fixed, static_cast<uint32_t>(f), output, buffer);
    };
  });
  return made;
}

bool can_continue(const TargetLayout& target, const Journal& journal, const std::string& temporary) {
  if (!journal.has_finished_tasks()) return false;
  size_t next = 0;
  for (uint32_t f = 0; f < target.files.size(); ++f) {
    const TargetFile& file = target.files[f];
    int64_t size = file.size;
    if (file.make) {
      if (next == journal.made().size() || journal.made()[next].file != f) return false;
      const MadeFile& made = journal.made()[next++].made;
      const auto [first, last] = holes_of(target, f);
      if (made.hole_offsets.size() != last - first) return false;
      size = made.size;
    }
    struct stat st {};
    const std::string path = file.name.empty() ? temporary : cat(temporary, "/", file.name);
    if (::lstat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size != size) return false;
  }
  return next == journal.made().size();
}

void reopen(TargetLayout& target, Output& output, const std::vector<Journal::Made>& made) {
  for (const Journal::Made& m : made) place_holes(target, m);
  for (const TargetFile& file : target.files) output.add(file.name);
}

namespace {

int64_t bytes_of(const TargetLayout& target, const Task& task) {
  int64_t sum = 0;
  for_each_range(target, task, [&](uint32_t h, int64_t, int64_t count) {
    sum += count * unit_size(target.holes[h].dtype);
  });
  return sum;
}

// A sync for each of these; two of them, and what is under way, may have to be done again. A sync of 256 MiB
// costs nothing beside the writing, one of 64 MiB a seventh more.
int64_t journal_interval(int64_t total) {
  return std::clamp(total / 8, int64_t{64} << 20, int64_t{256} << 20);
}

// Tasks, and behind them the reads for checksums alone: by number, without those that are done already.
class WorkList {
 public:
  WorkList(const TargetLayout& target, const plan::Plan& plan, std::vector<Task> tasks)
      : target_(target),
        plan_(plan),
        tasks_(std::move(tasks)),
        done_(tasks_.size() + plan.check_reads.size()) {}

  // Takes over what the journal has, and what it found.
  void continue_from(const Journal& journal, Totals& totals) {
    journal.replay([&](uint32_t number, std::span<const Finding> findings) {
      if (number >= done_.size() || done_[number] || !totals.add(findings)) return;
      done_[number] = true;
      if (number < tasks_.size()) continued_ += bytes_of(target_, tasks_[number]);
    });
  }
  TaskQueues open() const { return {target_, tasks_, done_}; }
  void work(Worker& worker, uint32_t number) const {
    if (number < tasks_.size()) {
      worker.copy(number, tasks_[number]);
    } else {
      worker.check(number, plan_.check_reads[number - tasks_.size()]);
    }
  }
  int64_t continued() const { return continued_; }

 private:
  const TargetLayout& target_;
  const plan::Plan& plan_;
  std::vector<Task> tasks_;
  std::vector<bool> done_;
  int64_t continued_ = 0;  // bytes of output
};

LanePlan lanes_for(const DeviceUse& use, const plan::Plan& plan, const Buffers& buffers,
                   DeviceState& device) {
  const LanePlan lanes = plan_lanes(plan, buffers, use.host_room, use.device->info());
  if (lanes.per_worker == 0)
    device.fail(trouble("device.memory", cat("cuda:", use.device->info().number,
                                             " has no part in this: there is too little memory for ",
                                             buffers.threads, " threads' buffers")));
  return lanes;
}

}  // namespace

Outcome run(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan, Output& output,
            const Buffers& buffers, const RunOptions& options, Progress& progress, const StopFlag& stop) {
  const Totals::Wanted wanted{options.digests || options.tensor_digests, !target.checksums.empty(),
                              options.tensor_digests};
  Totals totals(catalog, target, plan, wanted);
  std::optional<TensorDigests> digests;
  if (options.tensor_digests) digests.emplace(catalog, target);
  WorkList list(target, plan, cut_tasks(catalog, target, plan, buffers));
  if (options.journal != nullptr) list.continue_from(*options.journal, totals);
  TaskQueues open = list.open();
  std::optional<JournalKeeper> keeper;
  const int64_t interval = journal_interval(plan.bytes_out);
  if (options.journal != nullptr && plan.bytes_out > interval)
    keeper.emplace(*options.journal, output, interval, options.start_writeback);
  Run shared{catalog,
             target,
             plan,
             output,
             options,
             progress,
             wanted,
             totals,
             digests ? &*digests : nullptr,
             keeper ? &*keeper : nullptr};
  DeviceState device;
  std::optional<DirectFiles> direct;
  if (options.device != nullptr) {
    shared.lanes = lanes_for(*options.device, plan, buffers, device);
    // Past the page cache, as the output asks for; through it, host and pinned memory are faster.
    if (shared.lanes.per_worker > 0 && output.is_direct())
      shared.direct = &direct.emplace(*options.device->device, catalog, output, target.files.size());
  }

  enter_phase("copy", bytes_to_do(plan) - list.continued());
  progress.begin("copying", bytes_to_do(plan));
  progress.advance(list.continued());
  try {
    run_workers(buffers.threads, open.size(), stop, [&] {
      auto worker = std::make_shared<Worker>(shared, device, buffers);
      return WorkerBody([&list, &open, worker, queue = TaskQueues::kNoQueue](
                            size_t) mutable { list.work(*worker, open.next(queue)); },
                        [worker] { worker->drain(); });
    });
  } catch (...) {
    if (keeper) keeper->flush_if_possible();
    throw;
  }
  if (keeper) keeper->flush();
  progress.end();

  totals.throw_if_damaged();
  Outcome outcome;
  outcome.continued = list.continued();
  outcome.on_device = device.bytes();
  if (direct) outcome.direct = direct->bytes(), outcome.direct_failure = direct->failure();
  outcome.device_failure = device.failure();
  outcome.checksums_checked = static_cast<int64_t>(plan.checks.size());
  if (options.digests)
    for (uint32_t h = 0; h < target.holes.size(); ++h) outcome.digests.push_back(totals.hole_digest(h));
  if (digests) outcome.tensor_digests = digests->finish(totals);
  for (const LateChecksum& late : target.checksums) outcome.checksums.push_back(totals.checksum(late));
  for (uint32_t i = 0; i < plan.compared.size(); ++i) outcome.differences.push_back(totals.difference(i));
  return outcome;
}

void verify(const Catalog& catalog, const TargetLayout& target, const Outcome& outcome, const Output& output,
            const Buffers& buffers, Progress& progress, const StopFlag& stop) {
  int64_t total = 0;
  for (const Hole& h : target.holes) total += h.bytes();
  enter_phase("verify", total);
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
