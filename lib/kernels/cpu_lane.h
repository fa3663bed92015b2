// The lane of a thread of the CPU: everything is done when it is asked for, in memory that the caller reads
// and writes directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/kernels/lane.h"

namespace uckpt::kernels {

class CpuLane final : public Lane {
 public:
  explicit CpuLane(int64_t input_bytes);
  // The output is from now on this memory of the caller's.
  void set_output(std::span<uint8_t> output) { output_ = output; }

  uint8_t* direct(At at) override;
  void reserve(Region region, int64_t bytes) override;  // of all but input and output
  std::span<uint8_t> input() override { return input_.bytes(); }
  std::span<const uint8_t> output() override { return output_; }
  void upload(int64_t, int64_t) override {}
  void download(int64_t, int64_t) override {}

  void clear(At at, int64_t bytes) override;
  void copy_strided(At dst, At src, std::span<const CopyLoop> loops, int64_t item) override;
  void cast_strided(At dst, DType dst_dtype, At src, DType src_dtype,
                    std::span<const CopyLoop> loops) override;
  void cast(At dst, DType dst_dtype, At src, DType src_dtype, int64_t count) override;
  void apply_flags(At data, int64_t count, DType dtype, uint8_t flags) override;
  void add(At into, At other, DType dtype, int64_t count) override;
  void divide(At into, double by, DType dtype, int64_t count) override;
  void scale(At into, double factor, double summand, DType dtype, int64_t count) override;
  int compare_rounded(At wide, DType wide_dtype, At narrow, DType narrow_dtype, int64_t count) override;
  int crc32_raw(At data, int64_t bytes) override;
  int crc64_raw(At data, int64_t bytes) override;

  void wait() override { waited_ = true; }
  Differences differences(int result) const override { return results_[static_cast<size_t>(result)]; }
  uint64_t crc(int result) const override {
    return static_cast<uint64_t>(results_[static_cast<size_t>(result)].count);
  }

 private:
  // Bytes without a value until they are written; only ever larger.
  class Room {
   public:
    void reserve(size_t bytes);
    std::span<uint8_t> bytes() const { return {memory_.get(), size_}; }

   private:
    std::unique_ptr<uint8_t[]> memory_;
    size_t size_ = 0;
  };

  int keep(const Differences& result);

  Room input_, filled_, other_, scratch_;
  std::span<uint8_t> output_;
  std::vector<CopyLoop> gather_, scatter_;
  std::vector<Differences> results_;
  bool waited_ = false;
};

}  // namespace uckpt::kernels
