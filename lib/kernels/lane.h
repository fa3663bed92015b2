// A queue of work on memory of its own: on the CPU, where everything is done at once, or on a device.
#pragma once

#include <cstdint>
#include <span>

#include "lib/kernels/elements.h"
#include "lib/kernels/nest.h"
#include "lib/tensor/dtype.h"

namespace uckpt::kernels {

// The memory of a lane: what was read, ranges in a tensor's own type, what is put beside them, and what is to
// be written. Of input and output the host has a side of its own.
enum class Region : uint8_t { kInput, kFilled, kOther, kOutput };
inline constexpr int kRegions = 4;
struct LaneSizes {
  int64_t of[kRegions] = {};  // bytes
  int64_t operator[](Region r) const { return of[static_cast<int>(r)]; }
  int64_t& operator[](Region r) { return of[static_cast<int>(r)]; }
};
// A place in it, of no special alignment.
struct At {
  Region region;
  int64_t offset = 0;  // bytes
  At operator+(int64_t bytes) const { return {region, offset + bytes}; }
};

inline constexpr int kMostResults = 4096;

// A file that a device reads and writes itself, past the host's memory (lib/kernels/gpu_direct.h).
class DirectFile {
 public:
  virtual ~DirectFile() = default;
};

// One thread feeds it. What is queued is done in that order, later; `wait` waits for all of it. Kernels give
// the same bits on every lane, and take what those of lib/kernels/{elements,cast,arithmetic,crc}.h take. All
// but the destructor throw trouble (`device.failed`) where a device does not do what it should.
class Lane {
 public:
  virtual ~Lane() = default;

  // The CPU's own memory at this place, where work is done at once on what the host writes there; null: there
  // is none, and all must come by `input`.
  virtual uint8_t* direct(At) { return nullptr; }
  // Makes room for so many bytes, where rooms can grow; what lay in this region is gone. Throws trouble
  // (`device.memory`) where they cannot.
  virtual void reserve(Region region, int64_t bytes) = 0;

  // The host's sides. Input may be written from a `wait` to the `upload` of the same bytes; output may be
  // read between `wait` and the next `download`.
  virtual std::span<uint8_t> input() = 0;
  virtual std::span<const uint8_t> output() = 0;
  virtual void upload(int64_t offset, int64_t bytes) = 0;    // of the input
  virtual void download(int64_t offset, int64_t bytes) = 0;  // of the output

  // The device's sides, from and to a file of this lane's device, in whole pages of it. At once: nothing that
  // is queued may touch them. False: it could not be done, and the way by the host's sides is open as before.
  virtual bool read_direct(const DirectFile&, int64_t /*file_offset*/, int64_t /*offset*/,
                           int64_t /*bytes*/) {
    return false;
  }
  virtual bool write_direct(const DirectFile&, int64_t /*file_offset*/, int64_t /*offset*/,
                            int64_t /*bytes*/) {
    return false;
  }

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

  // These give the number of a result, which is there after `wait` and until the next work is queued. There
  // is room for `kMostResults` between two waits.
  virtual int compare_rounded(At wide, DType wide_dtype, At narrow, DType narrow_dtype, int64_t count) = 0;
  virtual int crc32_raw(At data, int64_t bytes) = 0;
  virtual int crc64_raw(At data, int64_t bytes) = 0;

  virtual void wait() = 0;
  virtual Differences differences(int result) const = 0;
  virtual uint64_t crc(int result) const = 0;
};

}  // namespace uckpt::kernels
