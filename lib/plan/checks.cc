#include "lib/plan/checks.h"

#include <algorithm>

namespace uckpt::plan {

namespace {

// A piece of the input, as runs of its record that lie a period apart.
struct Read {
  uint32_t record;
  int64_t begin, run, period, count;
};

// The bytes that the move brings, and how many of them lie in one run of the input at least.
struct Extent {
  int64_t bytes, run;
};

Extent extent_of(const Plan& plan, const Move& m) {
  // By rising stride in the input, as far as one loop goes on where another ends.
  int64_t bytes = m.src_item, run = m.src_item;
  const auto loop_at = [&](int l) {
    return l < m.loops ? plan.loops[m.loops_at + static_cast<uint32_t>(l)]
                       : Loop{m.count, m.src_step, m.dst_step};
  };
  for (int l = 0; l <= m.loops; ++l) bytes *= loop_at(l).count;
  for (bool grows = true; grows;) {
    grows = false;
    for (int l = 0; l <= m.loops; ++l) {
      const Loop loop = loop_at(l);
      if (loop.count == 1 || loop.src_stride != run) continue;
      run *= loop.count;
      grows = true;
    }
  }
  return {bytes, run};
}

class Checks {
 public:
  Checks(const Catalog& catalog, const TargetLayout& target, bool check_digests, Plan& plan)
      : catalog_(catalog), target_(target), check_digests_(check_digests), plan_(plan) {}

  void run() {
    plan_.check_of_record.assign(catalog_.records.size(), kNoRecord);
    for (const auto* moves : {&plan_.moves, &plan_.compares, &plan_.addends})
      for (const Move& m : *moves) add_move(m);
    if (plan_.checks.empty()) return;
    std::vector<bool> seen(catalog_.tensors.size(), false);
    for (const TargetShard& shard : target_.shards) {
      if (seen[shard.tensor]) continue;
      seen[shard.tensor] = true;
      add_tensor(catalog_.tensors[shard.tensor]);
    }
    std::sort(reads_.begin(), reads_.end(), [](const Read& a, const Read& b) {
      return a.record != b.record ? a.record < b.record : a.begin < b.begin;
    });
    for (size_t i = 0; i < reads_.size();) {
      const size_t first = i;
      while (i < reads_.size() && reads_[i].record == reads_[first].record) ++i;
      settle(std::span(reads_).subspan(first, i - first));
    }
  }

 private:
  // A checksum of shorter runs than this, each brought to its place, costs more than to read all once more.
  static constexpr int64_t kShortest = 64;

  void add_move(const Move& m) {
    if (m.record == kNoRecord || m.is_copy) return;
    if (!check_digests_ && catalog_.records[m.record].is_digest) return;
    uint32_t& check = plan_.check_of_record[m.record];
    if (check == kNoRecord) {
      check = static_cast<uint32_t>(plan_.checks.size());
      plan_.checks.push_back({m.record, false});
      moved_.push_back(0);
    }
    const Extent extent = extent_of(plan_, m);
    moved_[check] += extent.bytes;
    if (extent.run < std::min(kShortest, extent.bytes)) plan_.checks[check].own_pass = true;
  }

  void add_tensor(const Tensor& t) {
    add_pieces(t, t.pieces, t.dtype);
    for (const PieceRange& part : t.averaged_with) add_pieces(t, part, t.dtype);
    for (const Copy& copy : t.copies) add_pieces(t, copy.pieces, copy.dtype);
  }

  void add_pieces(const Tensor& t, PieceRange range, DType dtype) {
    for (const Piece& p : catalog_.pieces_of(range)) {
      if (p.record == kNoRecord || plan_.check_of_record[p.record] == kNoRecord) continue;
      Read read{p.record, p.offset, unit_size(dtype), 0, 1};
      if (item_size(dtype) == 0) {  // goes in whole bytes
        read.run = units_of(t);
      } else if (!find_runs(catalog_.axes_of(p), read)) {
        plan_.checks[plan_.check_of_record[p.record]].own_pass = true;
      }
      if (read.run > 0) reads_.push_back(read);
    }
  }

  // False: they are no runs a period apart.
  bool find_runs(std::span<const Axis> axes, Read& read) {
    const int64_t item = read.run;
    loops_.clear();
    for (const Axis& a : axes) {
      if (a.extent == 0) read.run = 0;
      if (a.extent > 1) loops_.push_back({a.stride * item, a.extent});
    }
    if (read.run == 0) return true;
    std::sort(loops_.begin(), loops_.end());
    for (const auto& [stride, extent] : loops_) {
      if (read.count == 1 && stride == read.run) {
        read.run *= extent;
      } else if (read.count == 1 || stride == read.count * read.period) {
        if (read.count == 1) read.period = stride;
        read.count *= extent;
      } else {
        return false;
      }
    }
    return true;
  }

  // All pieces of one record, by where they begin.
  void settle(std::span<const Read> reads) {
    const Record& record = catalog_.records[reads.front().record];
    const uint32_t number = plan_.check_of_record[reads.front().record];
    RecordCheck& check = plan_.checks[number];
    int64_t at = record.offset, covered = 0;
    gaps_.clear();
    for (size_t i = 0; i < reads.size();) {
      const Read& r = reads[i];
      check.own_pass |= r.begin < at;
      if (r.begin > at) gaps_.push_back({number, at, r.begin - at});
      // Others of its period, which fill it up.
      int64_t filled = 0;
      for (; i < reads.size() && reads[i].begin == r.begin + filled && reads[i].period == r.period &&
             reads[i].count == r.count;
           ++i)
        filled += reads[i].run;
      check.own_pass |= r.count > 1 && filled != r.period;
      at = std::max(at, r.begin + r.count * filled);
      covered += r.count * filled;
    }
    const int64_t end = record.offset + record.size;
    if (at < end) gaps_.push_back({number, at, end - at});
    check.own_pass |= covered != moved_[number];
    if (check.own_pass) gaps_ = {{number, record.offset, record.size}};
    for (const CheckRead& gap : gaps_) add_check_reads(gap);
  }

  void add_check_reads(const CheckRead& whole) {
    constexpr int64_t kStep = int64_t{1} << 20;
    for (int64_t done = 0; done < whole.size; done += kStep) {
      plan_.check_reads.push_back({whole.check, whole.offset + done, std::min(kStep, whole.size - done)});
    }
    plan_.bytes_in += whole.size;
  }

  const Catalog& catalog_;
  const TargetLayout& target_;
  const bool check_digests_;
  Plan& plan_;
  std::vector<int64_t> moved_;  // of each check: the bytes that moves bring of its record
  std::vector<Read> reads_;
  std::vector<std::pair<int64_t, int64_t>> loops_;  // of one piece: stride in bytes, steps
  std::vector<CheckRead> gaps_;                     // of one record
};

}  // namespace

void plan_checks(const Catalog& catalog, const TargetLayout& target, bool check_digests, Plan& plan) {
  Checks(catalog, target, check_digests, plan).run();
}

}  // namespace uckpt::plan
