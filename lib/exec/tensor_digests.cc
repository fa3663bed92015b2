#include "lib/exec/tensor_digests.h"

#include <algorithm>
#include <map>

#include "lib/kernels/crc.h"
#include "lib/kernels/elements.h"

namespace uckpt::exec {

using kernels::Crc64;
using plan::Loop;
using plan::Move;

namespace {

// One box of a shard as a nest from the tensor (row-major) to the shard, in units of both.
void add_move(const TargetLayout& target, const TargetPiece& piece, uint32_t shard, plan::Plan& out) {
  std::vector<Loop> nest;
  int64_t tensor_stride = 1, first = 0;
  for (size_t a = piece.rank; a-- > 0;) {
    const Axis& axis = target.axes[piece.axes_at + a];
    if (axis.extent == 0) return;
    first += axis.start * tensor_stride;
    if (axis.extent > 1) {
      const bool joins = !nest.empty() && tensor_stride == nest.back().count * nest.back().src_stride &&
                         axis.stride == nest.back().count * nest.back().dst_stride;
      if (joins) {
        nest.back().count *= axis.extent;
      } else {
        nest.push_back({axis.extent, tensor_stride, axis.stride});
      }
    }
    tensor_stride *= axis.size;
  }
  std::stable_sort(nest.begin(), nest.end(),
                   [](const Loop& a, const Loop& b) { return a.dst_stride > b.dst_stride; });
  Loop innermost{1, 1, 1};
  if (!nest.empty()) {
    innermost = nest.back();
    nest.pop_back();
  }
  Move move{};
  move.src_offset = first;
  move.dst_offset = piece.offset;
  move.count = innermost.count;
  move.src_step = innermost.src_stride;
  move.dst_step = innermost.dst_stride;
  move.src_item = move.dst_item = 1;
  move.shard = shard;
  move.loops_at = static_cast<uint32_t>(out.loops.size());
  move.loops = static_cast<uint8_t>(nest.size());
  out.loops.insert(out.loops.end(), nest.begin(), nest.end());
  out.moves.push_back(move);
}

// A part of a move, in bytes: the loops by falling stride in the tensor, and where its last byte ends there.
struct PlacedBox {
  std::vector<Loop> loops;
  int64_t run, end;
};

PlacedBox placed_box(const plan::Plan& where, const Move& move, int64_t at, std::span<const int64_t> counts,
                     int64_t item) {
  PlacedBox box{{}, item, (at + 1) * item};
  for (size_t l = 0; l < counts.size(); ++l) {
    if (counts[l] == 1) continue;
    const Loop loop =
        l + 1 == counts.size() ? Loop{0, move.src_step, move.dst_step} : where.loops[move.loops_at + l];
    box.loops.push_back({counts[l], loop.src_stride * item, loop.dst_stride * item});
    box.end += (counts[l] - 1) * box.loops.back().src_stride;
  }
  std::stable_sort(box.loops.begin(), box.loops.end(),
                   [](const Loop& a, const Loop& b) { return a.src_stride > b.src_stride; });
  return box;
}

// The bytes of the box in the tensor's order, one after another: where they lie, or else in `scratch`.
const uint8_t* made_dense(const PlacedBox& box, const uint8_t* written, Bytes& scratch) {
  std::vector<kernels::CopyLoop> nest(box.loops.size());
  int64_t bytes = box.run;
  bool is_dense = true;
  for (size_t l = box.loops.size(); l-- > 0;) {
    nest[l] = {box.loops[l].count, box.loops[l].dst_stride, bytes};
    is_dense &= box.loops[l].dst_stride == bytes;
    bytes *= box.loops[l].count;
  }
  if (is_dense) return written;
  scratch.resize(static_cast<size_t>(bytes));
  kernels::copy_strided(scratch.data(), written, nest, static_cast<size_t>(box.run));
  return scratch.data();
}

uint64_t crc_of_box(PlacedBox box, const uint8_t* dense) {
  while (!box.loops.empty() && box.loops.back().src_stride == box.run) {
    box.run *= box.loops.back().count;
    box.loops.pop_back();
  }
  std::vector<kernels::Crc64Shift> shifts;
  shifts.reserve(box.loops.size());
  for (const Loop& loop : box.loops) shifts.emplace_back(static_cast<uint64_t>(loop.src_stride));
  std::vector<kernels::CrcLoop<kernels::Crc64Shift>> loops(box.loops.size());
  int64_t bytes = box.run;
  for (size_t l = loops.size(); l-- > 0;) {
    loops[l] = {box.loops[l].count, bytes, &shifts[l]};
    bytes *= box.loops[l].count;
  }
  return kernels::crc_of_runs(dense, std::span<const kernels::CrcLoop<kernels::Crc64Shift>>(loops),
                              static_cast<size_t>(box.run));
}

}  // namespace

TensorDigests::TensorDigests(const Catalog& catalog, const TargetLayout& target)
    : catalog_(catalog), target_(target) {
  for (uint32_t s = 0; s < target.shards.size(); ++s) {
    const TargetShard& shard = target.shards[s];
    where_.first_move.push_back(static_cast<uint32_t>(where_.moves.size()));
    for (uint32_t p = shard.first_piece; p < shard.first_piece + shard.pieces; ++p)
      if (!target.pieces[p].is_copy) add_move(target, target.pieces[p], s, where_);
    const auto moves = std::span(where_.moves).subspan(where_.first_move.back());
    const bool is_run = moves.size() == 1 && moves[0].is_run() && moves[0].count == shard.numel;
    run_begin_.push_back(is_run ? moves[0].src_offset : -1);
  }
  where_.first_move.push_back(static_cast<uint32_t>(where_.moves.size()));
}

int64_t TensorDigests::bytes_of_tensor(uint32_t h) const {
  const Hole& hole = target_.holes[h];
  return units_of(target_.tensor_of(catalog_, hole)) * unit_size(hole.dtype);
}

bool TensorDigests::is_scattered(uint32_t h) const {
  const Hole& hole = target_.holes[h];
  return !hole.is_copy && hole.count > 0 && run_begin_[hole.shard] < 0;
}

void TensorDigests::add(uint32_t h, int64_t begin, ByteSpan written, Bytes& scratch,
                        Findings& findings) const {
  const Hole& hole = target_.holes[h];
  const int64_t item = unit_size(hole.dtype), first = hole.first + begin,
                last = first + static_cast<int64_t>(written.size()) / item, total = bytes_of_tensor(h);
  for (uint32_t m = where_.first_move[hole.shard]; m < where_.first_move[hole.shard + 1]; ++m) {
    const Move& move = where_.moves[m];
    plan::clip(where_, move, first, last, [&](int64_t at, int64_t from, std::span<const int64_t> counts) {
      const PlacedBox box = placed_box(where_, move, at, counts, item);
      const uint8_t* dense = made_dense(box, written.data() + (from - first) * item, scratch);
      findings.add(FindingOf::kTensorDigest, target_.shards[hole.shard].tensor,
                   Crc64::shift(crc_of_box(box, dense), static_cast<uint64_t>(total - box.end)));
    });
  }
}

std::vector<TensorDigest> TensorDigests::finish(const Totals& totals) const {
  std::map<uint32_t, TensorDigest> found;  // raw
  for (uint32_t h = 0; h < target_.holes.size(); ++h) {
    const Hole& hole = target_.holes[h];
    if (hole.is_copy) continue;
    const TargetShard& shard = target_.shards[hole.shard];
    const auto [at, is_new] = found.try_emplace(shard.tensor, TensorDigest{shard.tensor, hole.dtype, 0});
    if (is_new) at->second.crc64 = totals.raw(FindingOf::kTensorDigest, shard.tensor);
    const int64_t run_begin = run_begin_[hole.shard];
    if (run_begin < 0) continue;
    const int64_t end = (run_begin + hole.first + hole.count) * unit_size(hole.dtype);
    at->second.crc64 ^=
        Crc64::shift(totals.raw(FindingOf::kHoleDigest, h), static_cast<uint64_t>(bytes_of_tensor(h) - end));
  }
  for (const TargetShard& shard : target_.shards)  // those without elements may have no holes
    found.try_emplace(shard.tensor, TensorDigest{shard.tensor, catalog_.tensors[shard.tensor].dtype, 0});
  std::vector<TensorDigest> out;
  for (auto& [tensor, digest] : found) {
    const int64_t bytes = units_of(catalog_.tensors[tensor]) * unit_size(digest.dtype);
    digest.crc64 = Crc64::finish(digest.crc64, static_cast<uint64_t>(bytes));
    out.push_back(digest);
  }
  return out;
}

}  // namespace uckpt::exec
