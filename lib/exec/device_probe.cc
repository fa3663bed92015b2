#include "lib/exec/device_probe.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "lib/exec/workers.h"
#include "lib/kernels/cpu_lane.h"

namespace uckpt::exec {

namespace {

using kernels::At;
using kernels::CopyLoop;
using kernels::Region;

constexpr int64_t kMi = int64_t{1} << 20;
// Of files, at most.
constexpr int64_t kMostOfFiles = 64 * kMi;
constexpr int64_t kMostOfLane = 32 * kMi, kMostOfCpu = 4 * kMi;
// How many things are measured, each for as long.
constexpr int kMeasured = 11;
constexpr size_t kMostTurns = 31;

class Stopwatch {
 public:
  explicit Stopwatch(const ProbeOptions& options) : options_(options) {}

  double now() const { return options_.now ? options_.now() : steady_seconds(); }
  double share() const { return options_.seconds / kMeasured; }
  void check_stop() const {
    if (options_.stop != nullptr && *options_.stop)
      throw Error(ErrorKind::kResumable, "stopped", "stopped before the end; the same command starts again");
  }
  // The median of turns of so many bytes, after one that does not count.
  template <class Turn>
  double rate_of(int64_t bytes, const Turn& turn) const {
    check_stop();
    turn();
    std::vector<double> seconds;
    const double end = now() + share();
    do {
      const double begun = now();
      turn();
      seconds.push_back(now() - begun);
    } while (now() < end && seconds.size() < kMostTurns);
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    return *middle > 0 ? static_cast<double>(bytes) / *middle : 0;
  }

 private:
  const ProbeOptions& options_;
};

// Matrices of f32 that a lane turns, as a batch: the blocks of the CPU's staging.
constexpr int64_t kSide = 512, kMatrix = kSide * kSide * 4;
static_assert(kMatrix == kMi);

struct KernelRates {
  double strided, cast;
};
// `bytes`: whole matrices, in the lane's input.
KernelRates kernel_rates(kernels::Lane& lane, int64_t bytes, const Stopwatch& watch) {
  const CopyLoop turned[] = {
      {bytes / kMatrix, kMatrix, kMatrix}, {kSide, 4, kSide * 4}, {kSide, kSide * 4, 4}};
  const At from{Region::kInput}, to{Region::kOutput};
  KernelRates rates{};
  rates.strided = watch.rate_of(bytes, [&] {
    lane.copy_strided(to, from, turned, 4);
    lane.wait();
  });
  rates.cast = watch.rate_of(bytes, [&] {
    lane.cast(to, DType::kBF16, from, DType::kF32, bytes / 4);
    lane.wait();
  });
  return rates;
}

// Ordinary numbers: what lies in fresh memory could be the same page of zeros over and over.
void fill_with_numbers(std::span<uint8_t> memory) {
  constexpr size_t kItem = sizeof(float);
  for (size_t i = 0; i + kItem <= memory.size(); i += kItem) {
    const float value = 1 + static_cast<float>(i % 4099);
    std::memcpy(memory.data() + i, &value, kItem);
  }
}

// Whole matrices, one at least, that fit so many times into the memory allowed.
int64_t lane_bytes(int64_t most, int64_t memory, int64_t times) {
  return std::max<int64_t>(1, std::min(most, memory / times) / kMatrix) * kMatrix;
}

struct Blocks {
  int64_t first, count;
  int64_t bytes;  // of each
};
struct Done {
  int64_t blocks;
  double rate;  // bytes a second
};
// Of all threads at once, one block after the other done by what `make_work` makes for a thread, until time
// is up or all are done.
template <class MakeWork>
Done done_at_once(int threads, const Blocks& blocks, const ProbeOptions& options, const MakeWork& make_work) {
  static const StopFlag never{false};
  const Stopwatch watch(options);
  const double begun = watch.now(), end = begun + watch.share();
  std::atomic<int64_t> done{0};
  run_workers(threads, static_cast<size_t>(blocks.count), options.stop != nullptr ? *options.stop : never,
              [&] {
                return [&, work = make_work()](size_t block) {
                  if (done > 0 && watch.now() >= end) return;
                  work(blocks.first + static_cast<int64_t>(block));
                  ++done;
                };
              });
  const double seconds = watch.now() - begun;
  return {done, seconds > 0 ? static_cast<double>(done * blocks.bytes) / seconds : 0};
}

// Whole blocks of the input's files, in a few long stretches all over it.
class InputBlocks {
 public:
  InputBlocks(std::span<const std::shared_ptr<ByteSource>> inputs, int64_t block) {
    int64_t all = 0;
    for (const auto& f : inputs) all += f->size() / block;
    constexpr int64_t kStretches = 16;
    const int64_t most = std::min(all, kMostOfFiles / block),
                  stretch = std::max<int64_t>(1, most / kStretches);
    size_t file = 0;
    int64_t before = 0;  // blocks, in the files before
    for (int64_t i = 0; i < most; ++i) {
      const int64_t at = i / stretch * stretch * all / most + i % stretch;
      while (at - before >= inputs[file]->size() / block) before += inputs[file++]->size() / block;
      places_.push_back({inputs[file].get(), (at - before) * block});
    }
  }
  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  void read(int64_t number, std::span<uint8_t> out) const {
    const auto& [file, offset] = places_[static_cast<size_t>(number)];
    file->read_at(offset, out);
  }

 private:
  struct Place {
    const ByteSource* file;
    int64_t offset;
  };
  std::vector<Place> places_;
};

// All threads read first, from the disk if it must be; what they read is in memory for the one after them.
FileRate read_rate(const ProbeOptions& options, int64_t block, double copy) {
  const InputBlocks blocks(options.inputs, block);
  if (blocks.count() == 0) return {copy, copy};
  const auto make_work = [&] {
    return [&, buffer = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(block))](int64_t number) {
      blocks.read(number, *buffer);
    };
  };
  const Done all = done_at_once(options.threads, {0, blocks.count(), block}, options, make_work);
  return {done_at_once(1, {0, all.blocks, block}, options, make_work).rate, all.rate};
}

// Files without a name, all of the same size.
class UnnamedFiles {
 public:
  UnnamedFiles(const std::string& folder, int count, int64_t bytes) {
    for (int i = 0; i < count; ++i) {
      const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
      if (fd < 0) break;
      files_.push_back(fd);
      if (::fallocate(fd, 0, 0, bytes) != 0 && (errno == ENOSPC || errno == EDQUOT)) break;
      ++usable_;
    }
  }
  UnnamedFiles(const UnnamedFiles&) = delete;
  UnnamedFiles& operator=(const UnnamedFiles&) = delete;
  ~UnnamedFiles() {
    for (const int fd : files_) ::close(fd);
  }
  int count() const { return usable_; }
  // False: the file system does not take it.
  bool write(int file, int64_t offset, std::span<const uint8_t> bytes, bool sync) const {
    const int fd = files_[static_cast<size_t>(file)];
    if (::pwrite(fd, bytes.data(), bytes.size(), offset) != static_cast<ssize_t>(bytes.size())) return false;
    constexpr unsigned kAll =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    return !sync || ::sync_file_range(fd, offset, static_cast<off64_t>(bytes.size()), kAll) == 0;
  }

 private:
  std::vector<int> files_;
  int usable_ = 0;
};

FileRate write_rate(const ProbeOptions& options, int64_t block, double copy) {
  const FileRate memory{copy, copy};
  if (options.folder.empty()) return memory;
  const int count = std::clamp(options.files, 1, options.threads);
  const int64_t half = std::max<int64_t>(1, kMostOfFiles / block / count / 2) * count;  // of the blocks
  const UnnamedFiles files(options.folder, count, 2 * half / count * block);
  if (files.count() < count) return memory;
  std::atomic<bool> failed{false};
  const auto writing = [&](bool sync) {
    return [&, sync] {
      auto buffer = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(block));
      fill_with_numbers(*buffer);
      return [&, sync, buffer](int64_t number) {
        const auto file = static_cast<int>(number % count);
        if (!files.write(file, number / count * block, *buffer, sync)) failed = true;
      };
    };
  };
  // Pages that are written again cost less than new ones: each half once.
  FileRate rate;
  rate.one = done_at_once(1, {0, half, block}, options, writing(false)).rate;
  rate.all = done_at_once(options.threads, {half, half, block}, options, writing(options.sync)).rate;
  return failed ? memory : rate;
}

}  // namespace

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

HostRates probe_host(const ProbeOptions& options) {
  const Stopwatch watch(options);
  HostRates rates;
  rates.threads = options.threads;
  {
    const int64_t bytes = lane_bytes(kMostOfCpu, options.memory, 2);
    kernels::CpuLane lane(bytes);
    std::vector<uint8_t> output(static_cast<size_t>(bytes));
    lane.set_output(output);
    fill_with_numbers(lane.input());
    const KernelRates kernels = kernel_rates(lane, bytes, watch);
    rates.strided = kernels.strided;
    rates.cast = kernels.cast;
  }
  {
    const int64_t bytes = lane_bytes(kMostOfLane, options.memory, 2);
    std::vector<uint8_t> from(static_cast<size_t>(bytes)), to(static_cast<size_t>(bytes));
    fill_with_numbers(from);
    rates.copy = watch.rate_of(bytes, [&] { std::memcpy(to.data(), from.data(), to.size()); });
  }
  constexpr int64_t kPage = 4096;
  const int64_t block = std::clamp(options.memory / options.threads / kPage * kPage, kPage, kMi);
  rates.read = read_rate(options, block, rates.copy);
  rates.write = write_rate(options, block, rates.copy);
  return rates;
}

DeviceRates probe_device(kernels::Device& device, const ProbeOptions& options) {
  const Stopwatch watch(options);
  const int64_t bytes = lane_bytes(kMostOfLane, options.memory, 2);
  kernels::LaneSizes sizes;
  sizes[Region::kInput] = sizes[Region::kOutput] = bytes;
  const std::unique_ptr<kernels::Lane> lane = device.make_lane(sizes);
  fill_with_numbers(lane->input());
  DeviceRates rates;
  rates.upload = watch.rate_of(bytes, [&] {
    lane->upload(0, bytes);
    lane->wait();
  });
  const KernelRates kernels = kernel_rates(*lane, bytes, watch);
  rates.strided = kernels.strided;
  rates.cast = kernels.cast;
  rates.download = watch.rate_of(bytes, [&] {
    lane->download(0, bytes);
    lane->wait();
  });
  return rates;
}

}  // namespace uckpt::exec
