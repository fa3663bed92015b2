// Devices that run kernels beside the CPU. No header of theirs is needed here: built without CUDA, there are
// none, and it is said why.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/kernels/elements.h"
#include "lib/kernels/nest.h"
#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

struct DeviceInfo {
  int number = 0;                       // as in cuda:0
  std::string name;                     // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;             // compute capability
  int64_t memory = 0, free_memory = 0;  // bytes
};

struct Devices {
  std::vector<DeviceInfo> found;
  std::string why_none;  // a clause: "uckpt was built without CUDA", "no NVIDIA driver is loaded"
};
Devices find_devices();

// The memory of a lane, in bytes. Input and output lie on the device and, pinned, on the host.
enum class Region : uint8_t { kInput, kFilled, kOther, kOutput };
inline constexpr int kRegions = 4;
struct LaneSizes {
  int64_t of[kRegions] = {};
  int64_t operator[](Region r) const { return of[static_cast<int>(r)]; }
};
// A place in it, on the device; of no special alignment.
struct At {
  Region region;
  int64_t offset = 0;  // bytes
};

// One queue of work on a device, with memory of its own: one thread feeds it. Whatever is queued is done in
// that order, later; `wait` waits for all of it. Kernels give the same bits as those of the CPU with the same
// names (lib/kernels/elements.h, cast.h, arithmetic.h, crc.h). All but the destructor throw trouble
// (`device.failed`) where the device does not do what it should.
class DeviceLane {
 public:
  virtual ~DeviceLane() = default;

  // The host's side. Input may be written from the end of a `wait` to the `upload` of the same bytes; output
  // may be read between `wait` and the next `download`.
  virtual std::span<uint8_t> input() = 0;
  virtual std::span<const uint8_t> output() = 0;
  virtual void upload(int64_t offset, int64_t bytes) = 0;    // of the input region
  virtual void download(int64_t offset, int64_t bytes) = 0;  // of the output region

  virtual void clear(At at, int64_t bytes) = 0;
  virtual void copy_strided(At dst, At src, std::span<const CopyLoop> loops, int64_t item) = 0;
  // The same and a cast in one: strides are those of the two types.
  virtual void cast_strided(At dst, DType dst_dtype, At src, DType src_dtype,
                            std::span<const CopyLoop> loops) = 0;
  virtual void cast(At dst, DType dst_dtype, At src, DType src_dtype, int64_t count) = 0;
  virtual void apply_flags(At data, int64_t count, DType dtype, uint8_t flags) = 0;
  virtual void add(At into, At other, DType dtype, int64_t count) = 0;
  virtual void divide(At into, double by, DType dtype, int64_t count) = 0;
  virtual void scale(At into, double factor, double summand, DType dtype, int64_t count) = 0;

  // These give the number of a result, which is there after `wait` and until the next work is queued.
  virtual int compare_rounded(At wide, DType wide_dtype, At narrow, DType narrow_dtype, int64_t count) = 0;
  virtual int crc32_raw(At data, int64_t bytes) = 0;
  virtual int crc64_raw(At data, int64_t bytes) = 0;

  virtual void wait() = 0;
  virtual Differences differences(int result) const = 0;
  virtual uint64_t crc(int result) const = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Throws trouble (`device.memory`) where the device or the host has no room for it.
  virtual std::unique_ptr<DeviceLane> make_lane(const LaneSizes& sizes) = 0;
};
// Throws trouble (`device.missing`) naming what there is, or why there is none.
std::unique_ptr<Device> open_device(int number);

}  // namespace uckpt::kernels
