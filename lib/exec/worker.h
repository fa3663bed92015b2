// One thread of a run: fills tasks, on the CPU or on a device, and writes them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "lib/exec/device_use.h"
#include "lib/exec/executor.h"
#include "lib/exec/filler.h"
#include "lib/io/direct.h"

namespace uckpt::exec {

// What all workers share.
struct Run {
  const Catalog& catalog;
  const TargetLayout& target;
  const plan::Plan& plan;
  Output& output;
  const RunOptions& options;
  Progress& progress;
  const Totals::Wanted& wanted;
  Totals& totals;
  const TensorDigests* digests;   // null: not wanted
  JournalKeeper* keeper;          // null: nothing is kept
  LanePlan lanes = {};            // of options.device
  DirectFiles* direct = nullptr;  // that it reads and writes itself; null: none
};

// Whether the device is still of use, and how much it did. Thread-safe.
class DeviceState {
 public:
  bool works() const { return works_; }
  void fail(const Error& why);
  void add(int64_t bytes) { bytes_ += bytes; }
  int64_t bytes() const { return bytes_; }
  const std::string& failure() const { return failure_; }  // once all workers are done

 private:
  std::atomic<bool> works_{true};
  std::atomic<int64_t> bytes_{0};
  std::mutex mutex_;
  std::string failure_;
};

class Worker {
 public:
  Worker(Run& run, DeviceState& device, const Buffers& buffers);
  ~Worker();

  void copy(uint32_t number, const Task& task);
  // A range of the input for a record's checksum alone.
  void check(uint32_t number, const plan::CheckRead& read);
  // Writes what is still on the device.
  void drain();

 private:
  class Slot;
  void copy_on_cpu(uint32_t number, const Task& task);
  bool suits_device(const Task& task) const;
  bool start_on_device(uint32_t number, const Task& task);
  void finish_on_device(Slot& slot);
  bool write_direct(uint32_t file, Slot& slot);
  void write(uint32_t file, int64_t offset, ByteSpan bytes);
  void count_written(uint32_t file, int64_t offset, int64_t bytes);
  void finish(uint32_t number, Findings& findings);

  Run& run_;
  DeviceState& device_;
  CpuFiller filler_;
  PageBuffer buffer_;
  std::vector<std::unique_ptr<Slot>> slots_;
  size_t next_slot_ = 0;
  int64_t written_ = 0;  // by the task
};

}  // namespace uckpt::exec
