#include "lib/exec/worker.h"

#include <optional>

namespace uckpt::exec {

void DeviceState::fail(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (works_.exchange(false)) failure_ = why.line();
}

// A lane, and the task that is under way there.
class Worker::Slot {
 public:
  Slot(Run& run, std::unique_ptr<kernels::Lane> lane)
      : lane_(std::move(lane)), filler_(run.catalog, run.target, run.plan, run.wanted, run.digests, *lane_) {}

  bool is_busy() const { return task_.has_value(); }
  uint32_t number() const { return number_; }
  const Task& task() const { return *task_; }
  int64_t bytes() const { return bytes_; }
  Findings& findings() { return filler_.findings(); }

  void start(const TargetLayout& target, uint32_t number, const Task& task) {
    number_ = number;
    task_ = task;
    bytes_ = 0;
    for_each_range(target, task, [&](uint32_t h, int64_t begin, int64_t count) {
      const Hole& hole = target.holes[h];
      const int64_t unit = unit_size(hole.dtype);
      if (bytes_ == 0) {  // pages of the file are pages of memory, for --direct
        offset_ = hole.offset + begin * unit;
        at_ = offset_ % kPageBytes;
      }
      filler_.fill(h, begin, count, at_ + bytes_);
      bytes_ += count * unit;
    });
    lane_->download(at_, bytes_);
  }
  int64_t file_offset() const { return offset_; }
  ByteSpan settle() {
    filler_.settle(lane_->output());
    return lane_->output().subspan(static_cast<size_t>(at_), static_cast<size_t>(bytes_));
  }
  void done() { task_.reset(); }

 private:
  const std::unique_ptr<kernels::Lane> lane_;
  Filler filler_;
  uint32_t number_ = 0;
  std::optional<Task> task_;
  int64_t offset_ = 0, at_ = 0, bytes_ = 0;  // in the file, and in the lane's output
};

Worker::Worker(Run& run, DeviceState& device, const Buffers& buffers)
    : run_(run),
      device_(device),
      filler_(run.catalog, run.target, run.plan, run.wanted, run.digests, buffers),
      buffer_(static_cast<size_t>(buffers.task_bytes)) {}

Worker::~Worker() = default;

void Worker::copy(uint32_t number, const Task& task) {
  if (!suits_device(task) || !start_on_device(number, task)) copy_on_cpu(number, task);
}

// Small holes that lie back to back in the file are written together.
void Worker::copy_on_cpu(uint32_t number, const Task& task) {
  const uint32_t file = run_.target.holes[task.first_hole].file;
  int64_t file_offset = 0;
  buffer_.begin(0);
  for_each_range(run_.target, task, [&](uint32_t h, int64_t begin, int64_t count) {
    const Hole& hole = run_.target.holes[h];
    const int64_t offset = hole.offset + begin * unit_size(hole.dtype);
    const auto held = static_cast<int64_t>(buffer_.bytes().size());
    if (held == 0 || offset != file_offset + held) {
      if (held > 0) write(file, file_offset, buffer_.bytes());
      file_offset = offset;
      buffer_.begin(offset);
    }
    filler_.fill(h, begin, count, buffer_.append(static_cast<size_t>(count * unit_size(hole.dtype))));
  });
  if (!buffer_.empty()) write(file, file_offset, buffer_.bytes());
  finish(number, filler_.findings());
}

void Worker::check(uint32_t number, const plan::CheckRead& read) {
  filler_.check(read);
  run_.progress.advance(read.size);
  finish(number, filler_.findings());
}

// One unbroken range, of which something is more than copied.
bool Worker::suits_device(const Task& task) const {
  if (run_.lanes.per_worker == 0 || !device_.works()) return false;
  bool some = false, unbroken = true;
  int64_t end = -1;
  for_each_range(run_.target, task, [&](uint32_t h, int64_t begin, int64_t count) {
    const Hole& hole = run_.target.holes[h];
    const int64_t unit = unit_size(hole.dtype), offset = hole.offset + begin * unit;
    some |= run_.options.device->holes[h];
    unbroken &= end < 0 || offset == end;
    end = offset + count * unit;
  });
  return some && unbroken;
}

// False: the device failed, and the task is still to be done.
bool Worker::start_on_device(uint32_t number, const Task& task) {
  const size_t at = next_slot_++ % static_cast<size_t>(run_.lanes.per_worker);
  try {
    if (at == slots_.size())
      slots_.push_back(
          std::make_unique<Slot>(run_, run_.options.device->device->make_lane(run_.lanes.sizes)));
    finish_on_device(*slots_[at]);
    if (!device_.works()) return false;
    slots_[at]->start(run_.target, number, task);
    return true;
  } catch (const Error& error) {
    if (!kernels::is_of_device(error)) throw;
    device_.fail(error);
    if (at < slots_.size()) slots_[at]->done();
    return false;
  }
}

// What the device owes is done over where it fails.
void Worker::finish_on_device(Slot& slot) {
  if (!slot.is_busy()) return;
  try {
    const ByteSpan bytes = slot.settle();
    write(run_.target.holes[slot.task().first_hole].file, slot.file_offset(), bytes);
    device_.add(slot.bytes());
    finish(slot.number(), slot.findings());
  } catch (const Error& error) {
    if (!kernels::is_of_device(error)) throw;
    device_.fail(error);
    copy_on_cpu(slot.number(), slot.task());
  }
  slot.done();
}

void Worker::drain() {
  for (const auto& slot : slots_) finish_on_device(*slot);
}

void Worker::write(uint32_t file, int64_t offset, ByteSpan bytes) {
  run_.output.write_at(file, offset, bytes);
  const auto size = static_cast<int64_t>(bytes.size());
  if (run_.options.start_writeback) run_.output.start_writeback(file, offset, size);
  run_.progress.advance(size);
  written_ += size;
}

// What a task found counts when its bytes are written.
void Worker::finish(uint32_t number, Findings& findings) {
  run_.totals.add(findings.all());
  if (run_.keeper != nullptr) run_.keeper->finished(number, written_, findings.all());
  findings.clear();
  written_ = 0;
}

}  // namespace uckpt::exec
