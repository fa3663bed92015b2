#include <algorithm>
#include <cstring>

#include "lib/kernels/arithmetic.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/cpu_lane.h"
#include "lib/kernels/crc.h"

namespace uckpt::kernels {

void CpuLane::Room::reserve(size_t bytes) {
  if (bytes <= size_) return;
  memory_.reset();  // the old one first: a budget may not hold both
  size_ = 0;
  memory_.reset(new uint8_t[bytes]);
  size_ = bytes;
}

CpuLane::CpuLane(int64_t input_bytes) { input_.reserve(static_cast<size_t>(input_bytes)); }

uint8_t* CpuLane::direct(At at) {
  switch (at.region) {
    case Region::kInput:
      return input_.bytes().data() + at.offset;
    case Region::kFilled:
      return filled_.bytes().data() + at.offset;
    case Region::kOther:
      return other_.bytes().data() + at.offset;
    case Region::kOutput:
      break;
  }
  return output_.data() + at.offset;
}

void CpuLane::reserve(Region region, int64_t bytes) {
  if (region == Region::kFilled) filled_.reserve(static_cast<size_t>(bytes));
  if (region == Region::kOther) other_.reserve(static_cast<size_t>(bytes));
}

int CpuLane::keep(const Differences& result) {
  if (waited_) results_.clear();
  waited_ = false;
  results_.push_back(result);
  return static_cast<int>(results_.size()) - 1;
}

void CpuLane::clear(At at, int64_t bytes) { std::memset(direct(at), 0, static_cast<size_t>(bytes)); }

void CpuLane::copy_strided(At dst, At src, std::span<const CopyLoop> loops, int64_t item) {
  kernels::copy_strided(direct(dst), direct(src), loops, static_cast<size_t>(item));
}

// In the order of the destination; a side that is dense needs no memory between.
void CpuLane::cast_strided(At dst, DType dst_dtype, At src, DType src_dtype,
                           std::span<const CopyLoop> loops) {
  const int64_t from = item_size(src_dtype), to = item_size(dst_dtype);
  gather_.assign(loops.begin(), loops.end());
  std::stable_sort(gather_.begin(), gather_.end(), is_outer);
  scatter_ = gather_;
  int64_t count = 1;
  bool src_dense = true, dst_dense = true;
  for (size_t l = gather_.size(); l-- > 0;) {
    src_dense &= gather_[l].src_stride == count * from;
    dst_dense &= scatter_[l].dst_stride == count * to;
    gather_[l].dst_stride = count * from;
    scatter_[l].src_stride = count * to;
    count *= gather_[l].count;
  }
  const int64_t gathered = src_dense ? 0 : count * from;
  scratch_.reserve(static_cast<size_t>(gathered + (dst_dense ? 0 : count * to)));
  uint8_t* const scratch = scratch_.bytes().data();
  if (!src_dense) kernels::copy_strided(scratch, direct(src), gather_, static_cast<size_t>(from));
  uint8_t* const casted = dst_dense ? direct(dst) : scratch + gathered;
  kernels::cast(src_dense ? direct(src) : scratch, src_dtype, casted, dst_dtype, count);
  if (!dst_dense) kernels::copy_strided(direct(dst), casted, scatter_, static_cast<size_t>(to));
}

void CpuLane::cast(At dst, DType dst_dtype, At src, DType src_dtype, int64_t count) {
  kernels::cast(direct(src), src_dtype, direct(dst), dst_dtype, count);
}

void CpuLane::apply_flags(At data, int64_t count, DType dtype, uint8_t flags) {
  kernels::apply_flags(direct(data), count, dtype, flags);
}

void CpuLane::add(At into, At other, DType dtype, int64_t count) {
  kernels::add(direct(into), direct(other), dtype, count);
}

void CpuLane::divide(At into, double by, DType dtype, int64_t count) {
  kernels::divide(direct(into), by, dtype, count);
}

void CpuLane::scale(At into, double factor, double summand, DType dtype, int64_t count) {
  kernels::scale(direct(into), factor, summand, dtype, count);
}

int CpuLane::compare_rounded(At wide, DType wide_dtype, At narrow, DType narrow_dtype, int64_t count) {
  return keep(kernels::compare_rounded(direct(wide), wide_dtype, direct(narrow), narrow_dtype, count));
}

int CpuLane::crc32_raw(At data, int64_t bytes) {
  return keep({static_cast<int64_t>(kernels::crc32_raw({direct(data), static_cast<size_t>(bytes)})), -1});
}

int CpuLane::crc64_raw(At data, int64_t bytes) {
  return keep({static_cast<int64_t>(kernels::crc64_raw({direct(data), static_cast<size_t>(bytes)})), -1});
}

}  // namespace uckpt::kernels
