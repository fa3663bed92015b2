#include "lib/exec/worker.h"

#include <optional>
#include <utility>

#include "lib/exec/copy_rules.h"

namespace uckpt::exec {

void DeviceState::fail(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (works_.exchange(false)) failure_ = why.line();
}

// A lane, and the task that is under way there.
class Worker::Slot {
 public:
  Slot(Run& run, std::unique_ptr<kernels::Lane> lane)
      : lane_(std::move(lane)),
        filler_(run.catalog, run.target, run.plan, run.wanted, run.digests, *lane_, run.direct) {}

  bool is_busy() const { return task_.has_value(); }
  uint32_t number() const { return number_; }
  const Task& task() const { return *task_; }
  int64_t bytes() const { return bytes_; }
  Findings& findings() { return filler_.findings(); }

  // `direct`: where the device may write whole pages itself; null: nowhere.
  void start(const TargetLayout& target, uint32_t number, const Task& task,
             const kernels::DirectFile* direct) {
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
    pages_ = whole_pages(offset_, bytes_);
    direct_ = pages_.bytes >= kLeastDirect && !filler_.needs_host() ? direct : nullptr;
    if (direct_ == nullptr) return lane_->download(at_, bytes_);
    lane_->download(at_, pages_.at);
    lane_->download(at_ + pages_.at + pages_.bytes, bytes_ - pages_.at - pages_.bytes);
  }
  int64_t file_offset() const { return offset_; }
  void settle() { filler_.settle(lane_->output()); }
  // What the device writes itself, once it is settled: these pages of the bytes. False: it does not.
  bool write_pages() {
    return direct_ != nullptr &&
           lane_->write_direct(*direct_, offset_ + pages_.at, at_ + pages_.at, pages_.bytes);
  }
  WholePages pages() const { return pages_; }
  // All that was filled, where the device has not written it.
  ByteSpan fetch() {
    if (std::exchange(direct_, nullptr) != nullptr) {
      lane_->download(at_, bytes_);
      lane_->wait();
    }
    return part(0, bytes_);
  }
  ByteSpan part(int64_t from, int64_t bytes) {
    return lane_->output().subspan(static_cast<size_t>(at_ + from), static_cast<size_t>(bytes));
  }
  void done() { task_.reset(); }

 private:
  const std::unique_ptr<kernels::Lane> lane_;
  Filler filler_;
  uint32_t number_ = 0;
  std::optional<Task> task_;
  int64_t offset_ = 0, at_ = 0, bytes_ = 0;  // in the file, and in the lane's output
  const kernels::DirectFile* direct_ = nullptr;
  WholePages pages_{};
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
    const uint32_t file = run_.target.holes[task.first_hole].file;
    slots_[at]->start(run_.target, number, task,
                      run_.direct != nullptr ? run_.direct->output(file) : nullptr);
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
    slot.settle();
    const uint32_t file = run_.target.holes[slot.task().first_hole].file;
    if (!write_direct(file, slot)) write(file, slot.file_offset(), slot.fetch());
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

// Whole pages by the device, the ragged edges by the host.
bool Worker::write_direct(uint32_t file, Slot& slot) {
  if (!slot.write_pages()) return false;
  const auto [at, pages] = slot.pages();
  const int64_t end = at + pages;
  run_.output.write_at(file, slot.file_offset(), slot.part(0, at));
  run_.output.write_at(file, slot.file_offset() + end, slot.part(end, slot.bytes() - end));
  run_.direct->add(pages);
  count_written(file, slot.file_offset(), slot.bytes());
  return true;
}

void Worker::write(uint32_t file, int64_t offset, ByteSpan bytes) {
  run_.output.write_at(file, offset, bytes);
  count_written(file, offset, static_cast<int64_t>(bytes.size()));
}

void Worker::count_written(uint32_t file, int64_t offset, int64_t bytes) {
  if (run_.options.start_writeback) run_.output.start_writeback(file, offset, bytes);
  run_.progress.advance(bytes);
  written_ += bytes;
}

// What a task found counts when its bytes are written.
void Worker::finish(uint32_t number, Findings& findings) {
  run_.totals.add(findings.all());
  if (run_.keeper != nullptr) run_.keeper->finished(number, written_, findings.all());
  findings.clear();
  written_ = 0;
}

}  // namespace uckpt::exec
