#include "lib/exec/filler.h"

#include <algorithm>

#include "lib/kernels/cast.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

Filler::Filler(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
               const Totals::Wanted& wanted, const TensorDigests* digests, const Buffers& buffers)
    : catalog_(catalog),
      target_(target),
      digests_(digests),
      wanted_(wanted),
      gatherer_(catalog, plan, findings_, buffers.staging_bytes) {}

void Filler::fill(uint32_t h, int64_t begin, int64_t count, std::span<uint8_t> written) {
  const Hole& hole = target_.holes[h];
  const DType dtype = target_.tensor_of(catalog_, hole).dtype;
  if (hole.dtype == dtype) {
    gather(hole, begin, written);
  } else {
    uncast_.resize(static_cast<size_t>(count * unit_size(dtype)));
    gather(hole, begin, uncast_);
    kernels::cast(uncast_.data(), dtype, written.data(), hole.dtype, count);
  }
  add_sums(h, begin, count, written);
}

void Filler::gather(const Hole& hole, int64_t begin, std::span<uint8_t> out) {
  const TargetShard& shard = target_.shards[hole.shard];
  const Tensor& tensor = catalog_.tensors[shard.tensor];
  const bool first_time = !hole.is_copy;
  const int64_t from = (hole.first + begin) * unit_size(tensor.dtype);
  if (shard.is_padded) std::fill(out.begin(), out.end(), uint8_t{0});
  gatherer_.fill(hole.shard, from, out, first_time);
  if (first_time) gatherer_.compare(hole.shard, from, out, tensor.dtype);
  gatherer_.finish(shard, hole.shard, from, out, tensor, first_time);
}

void Filler::add_sums(uint32_t h, int64_t begin, int64_t count, ByteSpan written) {
  const Hole& hole = target_.holes[h];
  const auto after = static_cast<uint64_t>((hole.count - begin - count) * unit_size(hole.dtype));
  if (wanted_.hole_digests)
    findings_.add(FindingOf::kHoleDigest, h, kernels::Crc64::shift(kernels::crc64_raw(written), after));
  if (wanted_.hole_checksums)
    findings_.add(FindingOf::kHoleChecksum, h, kernels::Crc32::shift(kernels::crc32_raw(written), after));
  if (digests_ != nullptr) digests_->add(h, begin, written, scratch_, findings_);
}

}  // namespace uckpt::exec
