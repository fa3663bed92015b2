#include "lib/exec/late_fields.h"

#include <algorithm>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/exec/holes.h"

namespace uckpt::exec {

std::vector<LateDigest> digest_places(const TargetLayout& target, const std::vector<Journal::Made>& made) {
  std::vector<LateDigest> places = target.digests;
  for (const Journal::Made& m : made) {
    const uint32_t first = holes_of(target, m.file).first;
    for (LateDigest d : m.made.digests) {
      d.hole += first;
      places.push_back(d);
    }
  }
  return places;
}

namespace {

// Of every digest and checksum there may be millions: what belongs into a field is told when it is written.
struct LateField {
  int64_t offset;
  uint32_t file;
  uint32_t source;  // a number in the digests, or behind them in the checksums
};

class LateFields {
 public:
  LateFields(const TargetLayout& target, std::span<const LateDigest> digests, const Outcome& outcome)
      : target_(target), digests_(digests), outcome_(outcome) {}

  // By file and offset.
  std::vector<LateField> all() const {
    std::vector<LateField> fields;
    fields.reserve(digests_.size() + 2 * target_.checksums.size());
    for (const LateDigest& late : digests_)
      fields.push_back({late.offset, target_.holes[late.hole].file, static_cast<uint32_t>(fields.size())});
    for (size_t i = 0; i < target_.checksums.size(); ++i)
      for (const int64_t place : target_.checksums[i].places)
        if (place != LateChecksum::kNowhere)
          fields.push_back({place, target_.checksums[i].file, static_cast<uint32_t>(digests_.size() + i)});
    std::ranges::sort(fields, {}, [](const LateField& f) { return std::pair(f.file, f.offset); });
    return fields;
  }

  int64_t end_of(const LateField& field) const {
    const bool is_digest = field.source < digests_.size();
    return field.offset + (!is_digest ? 4 : digests_[field.source].is_text ? 16 : 8);
  }

  void fill(const LateField& field, uint8_t* out) const {
    if (field.source >= digests_.size()) {
      store_le(out, outcome_.checksums[field.source - digests_.size()]);
      return;
    }
    const LateDigest& late = digests_[field.source];
    const uint64_t digest = outcome_.digests[late.hole];
    if (late.is_text)
      hex(digest, 16).copy(reinterpret_cast<char*>(out), 16);
    else
      store_le(out, digest);
  }

 private:
  const TargetLayout& target_;
  const std::span<const LateDigest> digests_;
  const Outcome& outcome_;
};

}  // namespace

// Neighbours are written together, with what lies between them as it is there.
void write_late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                       const Outcome& outcome, Output& output) {
  constexpr int64_t kApart = 256, kMost = int64_t{64} << 10;
  const LateFields late(target, digests, outcome);
  const std::vector<LateField> fields = late.all();
  Bytes block;
  for (size_t i = 0, first = 0; first < fields.size(); first = i) {
    const int64_t begin = fields[first].offset;
    for (i = first + 1; i < fields.size() && fields[i].file == fields[first].file &&
                        fields[i].offset - late.end_of(fields[i - 1]) <= kApart &&
                        late.end_of(fields[i]) - begin <= kMost;)
      ++i;
    block.resize(static_cast<size_t>(late.end_of(fields[i - 1]) - begin));
    if (i > first + 1) output.read_at(fields[first].file, begin, block);
    for (size_t f = first; f < i; ++f) late.fill(fields[f], block.data() + (fields[f].offset - begin));
    output.write_at(fields[first].file, begin, block);
  }
}

}  // namespace uckpt::exec
