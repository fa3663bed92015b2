#include "lib/exec/gather.h"

#include <algorithm>
#include <cstring>

#include "lib/base/checked.h"
#include "lib/io/input.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

using kernels::At;
using kernels::Crc32;
using kernels::Crc64;
using kernels::Region;
using plan::Loop;
using plan::Move;

Gatherer::Gatherer(const Catalog& catalog, const plan::Plan& plan, LaneUse& lane, Findings& findings)
    : catalog_(catalog), plan_(plan), lane_(lane), findings_(findings) {}

uint64_t Gatherer::add_to_record(uint32_t check, int64_t offset, ByteSpan bytes) {
  const Record& record = record_of(check);
  const auto after =
      static_cast<uint64_t>(record.offset + record.size - offset - static_cast<int64_t>(bytes.size()));
  if (record.is_digest) {
    const uint64_t raw = kernels::crc64_raw(bytes);
    findings_.add(FindingOf::kRecordDigest, check, Crc64::shift(raw, after));
    return raw;
  }
  const uint32_t raw = kernels::crc32_raw(bytes);
  findings_.add(FindingOf::kRecordChecksum, check, Crc32::shift(raw, after));
  return raw;
}

void Gatherer::go_on_summing(const Record& record, uint64_t raw, int64_t bytes) {
  if (summed_.bytes == 0) is_crc64_ = record.is_digest;
  if (is_crc64_ != record.is_digest) return;
  const auto more = static_cast<uint64_t>(bytes);
  crc_ = raw ^ (is_crc64_ ? Crc64::shift(crc_, more) : Crc32::shift(static_cast<uint32_t>(crc_), more));
  summed_.bytes += bytes;
}

bool Gatherer::is_summed(const Range& filled) const {
  return filled.at.region == summed_.at.region && filled.at.offset == summed_.at.offset &&
         filled.bytes == summed_.bytes;
}

std::optional<uint32_t> Gatherer::crc32_of(const Range& filled) const {
  return !is_crc64_ && is_summed(filled) ? std::optional(static_cast<uint32_t>(crc_)) : std::nullopt;
}

std::optional<uint64_t> Gatherer::crc64_of(const Range& filled) const {
  return is_crc64_ && is_summed(filled) ? std::optional(crc_) : std::nullopt;
}

// Which checksum the bytes of a move count for; kNoRecord: none.
uint32_t Gatherer::check_of(const Move& move) const {
  if (!checked_ || move.is_copy || move.record == kNoRecord || plan_.checks.empty()) return kNoRecord;
  const uint32_t check = plan_.check_of_record[move.record];
  return check == kNoRecord || plan_.checks[check].own_pass ? kNoRecord : check;
}

template <class Shift>
typename Shift::Raw Gatherer::crc_of_staged(std::span<const Loop> loops, const uint8_t* staged, int64_t run) {
  auto& [shifts, runs] = std::get<CrcRuns<Shift>>(runs_);
  if (shifts.size() + loops.size() > kMostShifts) shifts.clear();
  runs.clear();
  for (size_t l = 0; l < loops.size(); ++l) {
    auto& shift = shifts[loops[l].src_stride];
    if (!shift) shift = std::make_unique<Shift>(static_cast<uint64_t>(loops[l].src_stride));
    runs.push_back({nest_[l].count, nest_[l].src_stride, shift.get()});
  }
  return kernels::crc_of_runs(staged, std::span<const kernels::CrcLoop<Shift>>(runs),
                              static_cast<size_t>(run));
}

void Gatherer::add_staged_to_record(const Move& move, std::span<const Loop> loops, int64_t from,
                                    const uint8_t* staged) {
  const uint32_t check = check_of(move);
  if (check == kNoRecord) return;
  const Record& record = record_of(check);
  int64_t run = move.src_item, end = from + run;
  for (size_t l = 0; l < loops.size(); ++l) end += (nest_[l].count - 1) * loops[l].src_stride;
  while (!loops.empty() && loops.back().src_stride == run && nest_[loops.size() - 1].src_stride == run) {
    run *= nest_[loops.size() - 1].count;
    loops = loops.first(loops.size() - 1);
  }
  const auto after = static_cast<uint64_t>(record.offset + record.size - end);
  if (record.is_digest) {
    findings_.add(FindingOf::kRecordDigest, check,
                  Crc64::shift(crc_of_staged<kernels::Crc64Shift>(loops, staged, run), after));
  } else {
    findings_.add(FindingOf::kRecordChecksum, check,
                  Crc32::shift(crc_of_staged<kernels::Crc32Shift>(loops, staged, run), after));
  }
}

// A check of parts with gaps between them is the host's.
std::optional<int64_t> Gatherer::read_direct(const Move& move, std::span<const Loop> loops, int64_t from,
                                             int64_t bytes) {
  const uint32_t check = check_of(move);
  int64_t run = move.src_item;
  for (size_t l = loops.size(); check != kNoRecord && l-- > 0; run *= nest_[l].count)
    if (nest_[l].count != 1 && nest_[l].src_stride != run) return std::nullopt;
  const auto at = lane_.read_direct(catalog_, move.file, from, bytes);
  if (!at || check == kNoRecord) return at;
  const Record& record = record_of(check);
  const At data{Region::kInput, *at};
  lane_.await_crc(record.is_digest ? FindingOf::kRecordDigest : FindingOf::kRecordChecksum, check,
                  record.is_digest ? lane_->crc64_raw(data, bytes) : lane_->crc32_raw(data, bytes),
                  record.offset + record.size - from - bytes);
  return at;
}

void Gatherer::read(FileId file, int64_t offset, std::span<uint8_t> out) const {
  if (file == kLiteral) {
    std::memcpy(out.data(), catalog_.literals.data() + offset, out.size());
  } else {
    catalog_.files[file]->read_at(offset, out);
  }
}

namespace {

// The moves of a shard that can touch target bytes from `begin` on. Where moves follow each other the first
// is found by bisection, and the walk ends at the first move past the end.
std::span<const Move> moves_from(const std::vector<Move>& moves, const std::vector<uint32_t>& first,
                                 bool sequential, uint32_t shard, int64_t begin) {
  std::span<const Move> all(moves.data() + first[shard], first[shard + 1] - first[shard]);
  if (!sequential || all.empty()) return all;
  const auto after = std::upper_bound(all.begin(), all.end(), begin,
                                      [](int64_t at, const Move& m) { return at < m.dst_offset; });
  return all.subspan(static_cast<size_t>(after == all.begin() ? 0 : after - all.begin() - 1));
}

}  // namespace

void Gatherer::set_box(Box& box, const Move& move, int64_t src, int64_t dst,
                       std::span<const int64_t> counts) const {
  box.src = src;
  box.dst = dst;
  box.loops.clear();
  for (size_t l = 0; l < counts.size(); ++l) {
    if (counts[l] == 1) continue;
    const bool innermost = l + 1 == counts.size();
    const Loop loop = innermost ? Loop{0, move.src_step, move.dst_step} : plan_.loops[move.loops_at + l];
    box.loops.push_back({counts[l], loop.src_stride, loop.dst_stride});
  }
}

void Gatherer::fill(uint32_t shard, int64_t begin, int64_t bytes, At out, DType dtype, bool checked) {
  checked_ = checked;
  summed_ = {out, 0};
  crc_ = 0;
  is_crc64_ = false;
  const int64_t end = begin + bytes;
  for (const Move& move : moves_from(plan_.moves, plan_.first_move, plan_.sequential[shard], shard, begin)) {
    if (move.dst_offset >= end) break;  // sorted by target offset
    plan::clip(plan_, move, begin, end, [&](int64_t src, int64_t dst, std::span<const int64_t> counts) {
      set_box(box_, move, src, dst - begin, counts);
      gather(move, box_, out, dtype);
    });
  }
}

void Gatherer::gather(const Move& move, Box& box, At out, DType dtype) {
  const int64_t item = move.src_item;
  const bool run = box.loops.empty() || (box.loops.size() == 1 && box.loops[0].src_stride == item &&
                                         box.loops[0].dst_stride == item);
  if (run && move.flags == kPlain && dtype == move.src_dtype) {
    if (uint8_t* const to = lane_->direct(out + box.dst)) {
      const std::span<uint8_t> range(
          to, static_cast<size_t>(box.loops.empty() ? item : item * box.loops[0].count));
      read(move.file, box.src, range);
      const uint32_t check = check_of(move);
      if (check == kNoRecord) return;
      const uint64_t raw = add_to_record(check, box.src, range);
      if (out.region == summed_.at.region && out.offset + box.dst == summed_.at.offset + summed_.bytes)
        go_on_summing(record_of(check), raw, static_cast<int64_t>(range.size()));
      return;
    }
  }
  // Strided: as few reads as their density allows, so the loops go by falling source stride.
  std::stable_sort(box.loops.begin(), box.loops.end(),
                   [](const Loop& a, const Loop& b) { return a.src_stride > b.src_stride; });
  if (dtype != move.src_dtype) {
    const int64_t as = item_size(dtype);
    box.dst = box.dst / item * as;
    for (Loop& l : box.loops) l.dst_stride = l.dst_stride / item * as;
  }
  gather_strided(move, box.loops, box.src, out + box.dst, dtype);
}

// Stages as much of the outermost loop as there is room for, and copies from there; where not even once fits,
// goes one loop deeper. Where what is wanted lies close together it is read in one span with what lies
// between; else each part is read for itself, packed, so that the copy always has a block to turn.
void Gatherer::gather_strided(const Move& move, std::span<const Loop> loops, int64_t src, At dst,
                              DType dtype) {
  // What costs as much as to read a part for itself: of short ones, which come out of a mapping, and of
  // others.
  constexpr int64_t kShort = 4096, kGapOfShort = 512, kGap = 4096;
  const int64_t item = move.src_item, room = lane_.room();
  int64_t inner_span = item;
  for (const Loop& l : loops.subspan(std::min<size_t>(1, loops.size())))
    inner_span += (l.count - 1) * l.src_stride;
  const Loop outer = loops.empty() ? Loop{1, 0, 0} : loops[0];
  if (inner_span > room) {
    for (int64_t i = 0; i < outer.count; ++i)
      gather_strided(move, loops.subspan(1), src + i * outer.src_stride, dst + i * outer.dst_stride, dtype);
    return;
  }
  const int64_t gap = outer.src_stride - inner_span;
  const bool packed = move.file != kLiteral && gap > (inner_span < kShort ? kGapOfShort : kGap);
  const int64_t stride = packed ? inner_span : outer.src_stride;  // as staged
  const int64_t together = stride == 0 ? outer.count : (room - inner_span) / stride + 1;
  nest_.clear();
  for (const Loop& l : loops) nest_.push_back({l.count, l.src_stride, l.dst_stride});
  if (!nest_.empty()) nest_[0].src_stride = stride;
  for (int64_t i = 0; i < outer.count; i += together) {
    const int64_t n = std::min(together, outer.count - i), bytes = inner_span + (n - 1) * stride;
    const int64_t from = src + i * outer.src_stride;
    if (!nest_.empty()) nest_[0].count = n;
    const auto direct = packed ? std::nullopt : read_direct(move, loops, from, bytes);
    const At staged{Region::kInput, direct ? *direct : lane_.stage(bytes)};
    if (!direct) {
      const std::span<uint8_t> memory = lane_.staged(staged.offset, bytes);
      if (packed) {
        catalog_.files[move.file]->read_runs(from, outer.src_stride, inner_span, memory);
      } else {
        read(move.file, from, memory);
      }
      add_staged_to_record(move, loops, from, memory.data());
      lane_->upload(staged.offset, bytes);
    }
    if (move.flags != kPlain) lane_->apply_flags(staged, bytes / item, move.src_dtype, move.flags);
    const At to = dst + i * outer.dst_stride;
    if (dtype == move.src_dtype) {
      lane_->copy_strided(to, staged, nest_, item);
    } else {
      lane_->cast_strided(to, dtype, staged, move.src_dtype, nest_);
    }
  }
}

bool Gatherer::is_only_filled(const TargetShard& target, uint32_t shard, const Tensor& tensor) const {
  return plan_.first_compare[shard] == plan_.first_compare[shard + 1] && tensor.averaged_with.empty() &&
         tensor.factor == 1 && tensor.summand == 0 && target.factor == 1 && target.summand == 0;
}

void Gatherer::finish(const TargetShard& target, uint32_t shard, int64_t begin, const Range& filled,
                      const Tensor& tensor, bool checked) {
  checked_ = checked;
  if (!is_only_filled(target, shard, tensor)) summed_.bytes = 0;
  const DType dtype = tensor.dtype;
  const int64_t end = begin + filled.bytes, count = filled.bytes / std::max(1, item_size(dtype));
  const auto parts = static_cast<uint32_t>(tensor.averaged_with.size());
  const At addend{Region::kOther};
  if (parts > 0) lane_->reserve(Region::kOther, filled.bytes);
  for (uint32_t part = 0; part < parts; ++part) {
    if (target.is_padded) lane_->clear(addend, filled.bytes);
    for (const Move& move : moves_from(plan_.addends, plan_.first_addend, false, shard, begin)) {
      if (move.dst_offset >= end) break;
      if (move.compare != part) continue;
      plan::clip(plan_, move, begin, end, [&](int64_t src, int64_t dst, std::span<const int64_t> counts) {
        set_box(box_, move, src, dst - begin, counts);
        gather(move, box_, addend, move.src_dtype);
      });
    }
    lane_->add(filled.at, addend, dtype, count);
  }
  if (parts > 0) lane_->divide(filled.at, parts + 1, dtype, count);
  if (tensor.factor != 1 || tensor.summand != 0)
    lane_->scale(filled.at, tensor.factor, tensor.summand, dtype, count);
  if (target.factor != 1 || target.summand != 0)
    lane_->scale(filled.at, target.factor, target.summand, dtype, count);
}

void Gatherer::compare(uint32_t shard, int64_t begin, const Range& filled, DType dtype) {
  checked_ = true;
  const int64_t end = begin + filled.bytes;
  for (const Move& move : moves_from(plan_.compares, plan_.first_compare, false, shard, begin)) {
    if (move.dst_offset >= end) break;
    plan::clip(plan_, move, begin, end, [&](int64_t src, int64_t dst, std::span<const int64_t> counts) {
      set_box(box_, move, src, dst - begin, counts);
      compare_box(move, box_, filled, dtype, begin);
    });
  }
}

// The box is made dense on both sides, then compared; a plain run is compared where it lies.
void Gatherer::compare_box(const Move& move, const Box& box, const Range& filled, DType dtype,
                           int64_t begin) {
  constexpr int64_t kAlignment = 64;
  const int64_t dst_item = move.dst_item;
  int64_t count = 1;
  dense_ = box;
  dense_.dst = 0;
  widen_.resize(box.loops.size());
  for (size_t l = box.loops.size(); l-- > 0;) {
    widen_[l] = {box.loops[l].count, box.loops[l].dst_stride, count * dst_item};
    dense_.loops[l].dst_stride = count * move.src_item;
    count *= box.loops[l].count;
  }
  const bool run = box.loops.size() <= 1 && (box.loops.empty() || box.loops[0].dst_stride == dst_item);
  const At narrow{Region::kOther}, dense{Region::kOther, round_up(count * move.src_item, kAlignment)};
  At wide = filled.at + box.dst;
  lane_->reserve(Region::kOther, run ? dense.offset : dense.offset + count * dst_item);
  gather(move, dense_, narrow, move.src_dtype);
  if (!run) {
    lane_->copy_strided(dense, wide, widen_, dst_item);
    wide = dense;
  }
  lane_.await_differences(move.compare, lane_->compare_rounded(wide, dtype, narrow, move.src_dtype, count),
                          (begin + box.dst) / dst_item, run);
}

void Gatherer::check(const plan::CheckRead& read_range) {
  const Record& record = record_of(read_range.check);
  for (int64_t done = 0; done < read_range.size;) {
    const int64_t n = std::min(lane_.room(), read_range.size - done);
    const std::span<uint8_t> range = lane_.staged(lane_.stage(n), n);
    read(record.file, read_range.offset + done, range);
    add_to_record(read_range.check, read_range.offset + done, range);
    done += n;
  }
}

}  // namespace uckpt::exec
