// A device that is none: it runs the bodies of lib/kernels/cuda on the host, thread by thread, phase by
// phase. Nothing happens before `wait`: what is read earlier is garbage, and what is overwritten earlier is
// what the device gets. Of memory outside of a region the sanitizers tell.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/kernels/cuda/lane.h"
#include "lib/kernels/device.h"
#include "lib/kernels/gpu_direct.h"

namespace uckpt::kernels::testing {

// Runs a body as a device may: units in any order and threads in any order within a phase. `Shared` begins as
// garbage.
template <class Body, int kPhase = 0>
void run_phases(const typename Body::Args& args, typename Body::Shared& shared, int64_t unit) {
  if constexpr (kPhase < Body::kPhases) {
    for (int t = 0; t < cuda::kThreads; ++t)
      Body::template run<kPhase>(args, shared, unit, unit % 2 == 0 ? t : cuda::kThreads - 1 - t);
    run_phases<Body, kPhase + 1>(args, shared, unit);
  }
}
template <class Body>
void emulate(const typename Body::Args& args, int64_t units) {
  const auto shared = std::make_unique<typename Body::Shared>();
  for (int64_t unit = units; unit-- > 0;) {
    std::memset(static_cast<void*>(shared.get()), 0xdb, sizeof *shared);
    run_phases<Body>(args, *shared, unit);
  }
}

// Memory at a multiple of a vector, and of whole vectors; sanitizers find what reaches behind it. Garbage at
// first.
class EmulatedMemory {
 public:
  explicit EmulatedMemory(int64_t bytes)
      : size_((static_cast<size_t>(std::max<int64_t>(bytes, 0)) + cuda::kVector - 1) / cuda::kVector),
        vectors_(new cuda::Vector[size_]) {
    spoil(0, static_cast<int64_t>(size_ * cuda::kVector));
  }
  uint8_t* bytes() const { return reinterpret_cast<uint8_t*>(vectors_.get()); }
  void spoil(int64_t offset, int64_t bytes) const {
    std::minstd_rand random(static_cast<uint32_t>(bytes) + 7);
    for (int64_t i = offset; i < offset + bytes; ++i) this->bytes()[i] = static_cast<uint8_t>(random() >> 8);
  }

 private:
  size_t size_;
  std::unique_ptr<cuda::Vector[]> vectors_;
};

// Which operation fails, as a device's would: none at first.
struct EmulatedFailure {
  std::atomic<int64_t> after = -1;  // so many are queued before it; negative: none fails
};

class EmulatedMachine {
 public:
  EmulatedMachine(const LaneSizes& sizes, std::shared_ptr<EmulatedFailure> failure)
      : sizes_(sizes),
        failure_(std::move(failure)),
        input_(sizes[Region::kInput]),
        output_(sizes[Region::kOutput]),
        results_(kMostResults),
        found_(kMostResults) {
    for (const int64_t size : sizes.of) memory_.push_back(std::make_unique<EmulatedMemory>(size));
    direct_input_.emplace(memory(Region::kInput), sizes[Region::kInput]);
    direct_output_.emplace(memory(Region::kOutput), sizes[Region::kOutput]);
  }

  const LaneSizes& sizes() const { return sizes_; }
  uint8_t* memory(Region region) const { return memory_[static_cast<size_t>(region)]->bytes(); }
  std::span<uint8_t> input() const { return {input_.bytes(), static_cast<size_t>(sizes_[Region::kInput])}; }
  std::span<const uint8_t> output() const {
    return {output_.bytes(), static_cast<size_t>(sizes_[Region::kOutput])};
  }
  cuda::Result* results() { return results_.data(); }
  const cuda::Result* found() const { return found_.data(); }
  cuda::Tables tables() const {
    static const cuda::Crc32Tables crc32 = cuda::Crc32Tables::make();
    static const cuda::Crc64Tables crc64 = cuda::Crc64Tables::make();
    return {&crc32, &crc64};
  }
  cuda::Room room() const { return {3, 5}; }

  // What was found is gone as soon as there is other work.
  void begin() { found_.assign(found_.size(), {0xbadbad, 0xbadbad}); }
  void upload(uint8_t* to, int64_t offset, int64_t bytes) {
    queue([=, this] { std::memcpy(to, input_.bytes() + offset, static_cast<size_t>(bytes)); });
  }
  void download(int64_t offset, const uint8_t* from, int64_t bytes) {
    output_.spoil(offset, bytes);
    queue([=, this] { std::memcpy(output_.bytes() + offset, from, static_cast<size_t>(bytes)); });
  }
  // With what is on the device by then.
  bool read_direct(const DirectFile& from, int64_t file_offset, int64_t offset, int64_t bytes) {
    return direct_input_->read(from, file_offset, offset, bytes);
  }
  bool write_direct(const DirectFile& to, int64_t file_offset, int64_t offset, int64_t bytes) {
    return direct_output_->write(to, file_offset, offset, bytes);
  }
  void clear(uint8_t* to, int64_t bytes) {
    queue([=] { std::memset(to, 0, static_cast<size_t>(bytes)); });
  }
  void fetch_results(int count) {
    queue([=, this] { std::copy_n(results_.begin(), count, found_.begin()); });
  }
  void clear_results(int count) {
    queue([=, this] { std::fill_n(results_.begin(), count, cuda::Result{}); });
  }
  template <class Body>
  void launch(const typename Body::Args& args, int64_t units) {
    ++launches;
    queue([=] { emulate<Body>(args, units); });
  }
  void wait() {
    const auto work = std::exchange(work_, {});
    for (const auto& each : work) each();
  }

  int64_t launches = 0;

 private:
  void queue(std::function<void()> work) {
    if (failure_->after.load() >= 0 && failure_->after.fetch_sub(1) == 0)
      work = [] {
        throw trouble("device.failed", "cuda:0 (emulated) could not do its work: as a test asked for");
      };
    work_.push_back(std::move(work));
  }

  LaneSizes sizes_;
  std::shared_ptr<EmulatedFailure> failure_;
  EmulatedMemory input_, output_;
  std::vector<std::unique_ptr<EmulatedMemory>> memory_;
  std::optional<DirectMemory> direct_input_, direct_output_;  // of memory_
  std::vector<cuda::Result> results_, found_;
  std::deque<std::function<void()>> work_;
};

class EmulatedDevice final : public Device {
 public:
  // `direct`: how it reads and writes files itself; null: it does not.
  explicit EmulatedDevice(std::shared_ptr<GpuDirect> direct = nullptr) : direct_(std::move(direct)) {
    info_.name = "emulated";
    info_.major = 9;
    info_.memory = info_.free_memory = int64_t{1} << 30;
  }
  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Lane> make_lane(const LaneSizes& sizes) override {
    int64_t bytes = 0;
    for (const int64_t size : sizes.of) bytes += size;
    if (bytes > info_.memory) throw trouble("device.memory", "cuda:0 (emulated) has no room for that");
    return std::make_unique<cuda::LaneOn<EmulatedMachine>>(
        std::make_unique<EmulatedMachine>(sizes, failure_));
  }
  std::string why_not_direct() override { return direct_ ? direct_->why_not() : Device::why_not_direct(); }
  std::unique_ptr<DirectFile> open_direct(int fd, std::string& why_not) override {
    return direct_ ? direct_->open(fd, why_not) : Device::open_direct(fd, why_not);
  }
  // The operation queued after `operations` more, on any lane, fails; it is told by that lane's `wait`.
  void fail_after(int64_t operations) { failure_->after = operations; }

 private:
  DeviceInfo info_;
  std::shared_ptr<GpuDirect> direct_;
  std::shared_ptr<EmulatedFailure> failure_ = std::make_shared<EmulatedFailure>();
};

}  // namespace uckpt::kernels::testing
