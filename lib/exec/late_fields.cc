#include "lib/exec/late_fields.h"

#include <algorithm>
#include <cstring>
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

struct LateField {
  uint32_t file;
  int64_t offset;
  size_t size;
  uint8_t bytes[16];
};

std::vector<LateField> late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                                   const Outcome& outcome) {
  std::vector<LateField> fields;
  for (const LateDigest& late : digests) {
    LateField& field = fields.emplace_back(LateField{target.holes[late.hole].file, late.offset, 8, {}});
    if (late.is_text) {
      const std::string text = hex(outcome.digests[late.hole], 16);
      field.size = text.copy(reinterpret_cast<char*>(field.bytes), sizeof field.bytes);
    } else {
      store_le(field.bytes, outcome.digests[late.hole]);
    }
  }
  for (size_t i = 0; i < target.checksums.size(); ++i) {
    for (const int64_t place : target.checksums[i].places) {
      LateField& field = fields.emplace_back(LateField{target.checksums[i].file, place, 4, {}});
      store_le(field.bytes, outcome.checksums[i]);
    }
  }
  std::ranges::sort(fields, {}, [](const LateField& f) { return std::pair(f.file, f.offset); });
  return fields;
}

}  // namespace

// Neighbours are written together, with what lies between them as it is there.
void write_late_fields(const TargetLayout& target, std::span<const LateDigest> digests,
                       const Outcome& outcome, Output& output) {
  constexpr int64_t kApart = 256, kMost = int64_t{64} << 10;
  const std::vector<LateField> fields = late_fields(target, digests, outcome);
  const auto end_of = [](const LateField& f) { return f.offset + static_cast<int64_t>(f.size); };
  Bytes block;
  for (size_t i = 0, first = 0; first < fields.size(); first = i) {
    const int64_t begin = fields[first].offset;
    for (i = first + 1; i < fields.size() && fields[i].file == fields[first].file &&
                        fields[i].offset - end_of(fields[i - 1]) <= kApart &&
                        end_of(fields[i]) - begin <= kMost;)
      ++i;
    block.resize(static_cast<size_t>(end_of(fields[i - 1]) - begin));
    if (i > first + 1) output.read_at(fields[first].file, begin, block);
    for (size_t f = first; f < i; ++f)
      std::memcpy(block.data() + (fields[f].offset - begin), fields[f].bytes, fields[f].size);
    output.write_at(fields[first].file, begin, block);
  }
}

}  // namespace uckpt::exec
