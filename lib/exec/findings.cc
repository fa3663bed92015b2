#include "lib/exec/findings.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/io/input.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

namespace {

uint64_t join(FindingOf of, uint64_t a, uint64_t b) {
  switch (of) {
    case FindingOf::kDifferent:
      return a + b;
    case FindingOf::kFirstDifferent:
      return std::min(a, b);
    default:
      return a ^ b;
  }
}

uint64_t nothing_of(FindingOf of) { return of == FindingOf::kFirstDifferent ? UINT64_MAX : 0; }

bool has_digests(const Catalog& catalog) { return std::ranges::any_of(catalog.records, &Record::is_digest); }

}  // namespace

void Findings::add(FindingOf of, uint32_t index, uint64_t value) {
  // A task reads few records by turns: what it has of one lies near the end.
  constexpr size_t kNear = 16;
  const size_t near = list_.size() > kNear ? list_.size() - kNear : 0;
  for (size_t i = list_.size(); i-- > near;) {
    if (list_[i].of != of || list_[i].index != index) continue;
    list_[i].value = join(of, list_[i].value, value);
    return;
  }
  list_.push_back({of, index, value});
}

Totals::Totals(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan,
               const Wanted& wanted)
    : catalog_(catalog), target_(target), plan_(plan) {
  const auto make = [&](FindingOf of, size_t count) {
    std::vector<std::atomic<uint64_t>> sums(count);
    for (auto& sum : sums) sum.store(nothing_of(of), std::memory_order_relaxed);
    sums_[static_cast<size_t>(of)] = std::move(sums);
  };
  make(FindingOf::kHoleDigest, wanted.hole_digests ? target.holes.size() : 0);
  make(FindingOf::kHoleChecksum, wanted.hole_checksums ? target.holes.size() : 0);
  make(FindingOf::kTensorDigest, wanted.tensor_digests ? catalog.tensors.size() : 0);
  make(FindingOf::kRecordChecksum, plan.checks.size());
  make(FindingOf::kDifferent, plan.compared.size());
  make(FindingOf::kFirstDifferent, plan.compared.size());
  make(FindingOf::kRecordDigest, has_digests(catalog) ? plan.checks.size() : 0);
}

bool Totals::add(std::span<const Finding> findings) {
  for (const Finding& f : findings) {
    const auto of = static_cast<size_t>(f.of);
    if (of >= std::size(sums_) || f.index >= sums_[of].size()) return false;
  }
  for (const Finding& f : findings) {
    std::atomic<uint64_t>& sum = sums_[static_cast<size_t>(f.of)][f.index];
    uint64_t seen = sum.load(std::memory_order_relaxed);
    while (!sum.compare_exchange_weak(seen, join(f.of, seen, f.value), std::memory_order_relaxed)) {
    }
  }
  return true;
}

uint64_t Totals::hole_digest(uint32_t hole) const {
  return kernels::Crc64::finish(raw(FindingOf::kHoleDigest, hole),
                                static_cast<uint64_t>(target_.holes[hole].bytes()));
}

uint64_t Totals::tensor_digest(uint32_t tensor, int64_t bytes) const {
  return kernels::Crc64::finish(raw(FindingOf::kTensorDigest, tensor), static_cast<uint64_t>(bytes));
}

// What lies between the holes is zeros, which add nothing.
uint32_t Totals::checksum(const LateChecksum& late) const {
  uint32_t sum = 0;
  for (uint32_t h = late.first_hole; h < late.first_hole + late.holes; ++h) {
    const Hole& hole = target_.holes[h];
    const int64_t after = late.offset + late.size - hole.offset - hole.bytes();
    if (hole.count > 0)
      sum ^= kernels::Crc32::shift(static_cast<uint32_t>(raw(FindingOf::kHoleChecksum, h)),
                                   static_cast<uint64_t>(after));
  }
  return kernels::Crc32::finish(sum, static_cast<uint64_t>(late.size));
}

Difference Totals::difference(uint32_t compared) const {
  const uint64_t count = raw(FindingOf::kDifferent, compared);
  if (count == 0) return {};
  return {static_cast<int64_t>(count), static_cast<int64_t>(raw(FindingOf::kFirstDifferent, compared))};
}

std::optional<Error> Totals::damage_of_digest(uint32_t check, const Record& record) const {
  const uint64_t expected = catalog_.digest_of(record);
  const uint64_t found =
      kernels::Crc64::finish(raw(FindingOf::kRecordDigest, check), static_cast<uint64_t>(record.size));
  if (found == expected) return std::nullopt;
  return refused("digest.differs", cat("expected digest crc64:", hex(expected, 16), ", found crc64:",
                                       hex(found, 16), ": its bytes were changed after they were written"))
      .in_file(catalog_.files[record.file]->name())
      .in_tensor(catalog_.name_of(record));
}

std::vector<Error> Totals::damaged_records() const {
  std::vector<Error> out;
  for (uint32_t i = 0; i < plan_.checks.size(); ++i) {
    const Record& record = catalog_.records[plan_.checks[i].record];
    if (record.is_digest) {
      if (auto damage = damage_of_digest(i, record)) out.push_back(std::move(*damage));
      continue;
    }
    const auto sum = static_cast<uint32_t>(raw(FindingOf::kRecordChecksum, i));
    const uint32_t found = kernels::Crc32::finish(sum, static_cast<uint64_t>(record.size));
    if (found == record.crc) continue;
    out.push_back(refused("zip.crc", cat("expected checksum ", hex(record.crc, 8), ", found ", hex(found, 8),
                                         ": the file was changed after it was written"))
                      .in_member(catalog_.name_of(record))
                      .in_file(catalog_.files[record.file]->name()));
  }
  return out;
}

void Totals::throw_if_damaged() const {
  const std::vector<Error> damaged = damaged_records();
  if (!damaged.empty()) throw damaged.front();
}

}  // namespace uckpt::exec
