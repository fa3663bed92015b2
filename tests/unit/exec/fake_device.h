// A device that does nothing, and moves a clock on by what that would have taken.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "lib/base/error.h"
#include "lib/kernels/device.h"

namespace uckpt::test {

using kernels::At;
using kernels::CopyLoop;
using kernels::Region;

struct FakeRates {
  double upload, download, strided, cast;  // bytes a second; the last two by the wider side
};

// What is there is what was asked of it.
struct FakeState {
  FakeRates rates;
  double clock = 0;  // seconds
  int lanes = 0;
  int64_t host_bytes = 0, most_host_bytes = 0;
  bool fails = false;
};

class FakeLane final : public kernels::Lane {
 public:
  FakeLane(FakeState& state, const kernels::LaneSizes& sizes)
      : state_(state),
        input_(static_cast<size_t>(sizes[Region::kInput])),
        output_(static_cast<size_t>(sizes[Region::kOutput])) {
    state_.host_bytes += bytes();
    state_.most_host_bytes = std::max(state_.most_host_bytes, state_.host_bytes);
  }
  ~FakeLane() override { state_.host_bytes -= bytes(); }

  void reserve(Region, int64_t) override {}
  std::span<uint8_t> input() override { return input_; }
  std::span<const uint8_t> output() override { return output_; }
  void upload(int64_t, int64_t bytes) override { queue(bytes, state_.rates.upload); }
  void download(int64_t, int64_t bytes) override { queue(bytes, state_.rates.download); }
  void clear(At, int64_t) override {}
  void copy_strided(At, At, std::span<const CopyLoop> loops, int64_t item) override {
    for (const CopyLoop& l : loops) item *= l.count;
    queue(item, state_.rates.strided);
  }
  void cast_strided(At, DType, At, DType, std::span<const CopyLoop>) override {}
  void cast(At, DType to, At, DType from, int64_t count) override {
    queue(count * std::max(item_size(to), item_size(from)), state_.rates.cast);
  }
  void apply_flags(At, int64_t, DType, uint8_t) override {}
  void add(At, At, DType, int64_t) override {}
  void divide(At, double, DType, int64_t) override {}
  void scale(At, double, double, DType, int64_t) override {}
  int compare_rounded(At, DType, At, DType, int64_t) override { return 0; }
  int crc32_raw(At, int64_t) override { return 0; }
  int crc64_raw(At, int64_t) override { return 0; }
  void wait() override {
    if (state_.fails) throw trouble("device.failed", "cuda:0: an illegal memory access was encountered");
    state_.clock += queued_;
    queued_ = 0;
  }
  kernels::Differences differences(int) const override { return {}; }
  uint64_t crc(int) const override { return 0; }

 private:
  int64_t bytes() const { return static_cast<int64_t>(input_.size() + output_.size()); }
  void queue(int64_t bytes, double rate) { queued_ += static_cast<double>(bytes) / rate; }

  FakeState& state_;
  std::vector<uint8_t> input_, output_;
  double queued_ = 0;
};

class FakeDevice final : public kernels::Device {
 public:
  explicit FakeDevice(FakeState& state, int number = 0) : state_(state) {
    info_.number = number;
    info_.name = "Fake";
  }
  const kernels::DeviceInfo& info() const override { return info_; }
  std::unique_ptr<kernels::Lane> make_lane(const kernels::LaneSizes& sizes) override {
    ++state_.lanes;
    return std::make_unique<FakeLane>(state_, sizes);
  }

 private:
  FakeState& state_;
  kernels::DeviceInfo info_;
};

}  // namespace uckpt::test
