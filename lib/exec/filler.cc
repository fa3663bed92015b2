#include "lib/exec/filler.h"

namespace uckpt::exec {

using kernels::At;
using kernels::Region;

Filler::Filler(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
               const Totals::Wanted& wanted, const TensorDigests* digests, kernels::Lane& lane,
               DirectFiles* direct)
    : catalog_(catalog),
      target_(target),
      digests_(digests),
      wanted_(wanted),
      lane_(lane, findings_, direct),
      gatherer_(catalog, plan, lane_, findings_) {}

void Filler::fill(uint32_t h, int64_t begin, int64_t count, int64_t written) {
  const Hole& hole = target_.holes[h];
  const TargetShard& shard = target_.shards[hole.shard];
  const Tensor& tensor = catalog_.tensors[shard.tensor];
  const Range out{{Region::kOutput, written}, count * unit_size(hole.dtype)};
  // A cast is done on the way, unless its result is not the last.
  if (hole.dtype == tensor.dtype || gatherer_.is_only_filled(shard, hole.shard, tensor)) {
    gather(hole, begin, count, out.at, hole.dtype);
  } else {
    const At uncast{Region::kFilled};
    lane_->reserve(Region::kFilled, count * unit_size(tensor.dtype));
    gather(hole, begin, count, uncast, tensor.dtype);
    lane_->cast(out.at, hole.dtype, uncast, tensor.dtype, count);
  }
  add_sums(h, begin, count, out);
}

void Filler::gather(const Hole& hole, int64_t begin, int64_t count, At out, DType dtype) {
  const TargetShard& shard = target_.shards[hole.shard];
  const Tensor& tensor = catalog_.tensors[shard.tensor];
  const bool first_time = !hole.is_copy;
  const int64_t item = unit_size(tensor.dtype), from = (hole.first + begin) * item;
  if (shard.is_padded) lane_->clear(out, count * unit_size(dtype));
  gatherer_.fill(hole.shard, from, count * item, out, dtype, first_time);
  if (dtype != tensor.dtype) return;
  const Range filled{out, count * item};
  if (first_time) gatherer_.compare(hole.shard, from, filled, dtype);
  gatherer_.finish(shard, hole.shard, from, filled, tensor, first_time);
}

void Filler::add_sums(uint32_t h, int64_t begin, int64_t count, const Range& written) {
  const Hole& hole = target_.holes[h];
  const int64_t after = (hole.count - begin - count) * unit_size(hole.dtype);
  if (wanted_.hole_digests) {
    if (const auto known = gatherer_.crc64_of(written)) {
      findings_.add(FindingOf::kHoleDigest, h, kernels::Crc64::shift(*known, static_cast<uint64_t>(after)));
    } else {
      lane_.await_crc(FindingOf::kHoleDigest, h, lane_->crc64_raw(written.at, written.bytes), after);
    }
  }
  if (wanted_.hole_checksums) {
    if (const auto known = gatherer_.crc32_of(written)) {
      findings_.add(FindingOf::kHoleChecksum, h, kernels::Crc32::shift(*known, static_cast<uint64_t>(after)));
    } else {
      lane_.await_crc(FindingOf::kHoleChecksum, h, lane_->crc32_raw(written.at, written.bytes), after);
    }
  }
  if (digests_ != nullptr && digests_->is_scattered(h)) scattered_.push_back({h, begin, written});
}

void Filler::settle(ByteSpan written) {
  lane_.settle();
  for (const Filled& filled : scattered_) {
    const ByteSpan bytes = written.subspan(static_cast<size_t>(filled.written.at.offset),
                                           static_cast<size_t>(filled.written.bytes));
    digests_->add(filled.hole, filled.begin, bytes, scratch_, findings_);
  }
  scattered_.clear();
}

}  // namespace uckpt::exec
