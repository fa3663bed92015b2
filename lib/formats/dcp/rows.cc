#include "lib/formats/dcp/rows.h"

#include <algorithm>
#include <iterator>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

namespace {

using pickle::Kind;
using pickle::Value;

enum Class : uint8_t { kChunk, kIndex, kPlace, kUnread };

constexpr std::string_view kClasses[] = {
    "torch.distributed.checkpoint.metadata.ChunkStorageMetadata",
    "torch.distributed.checkpoint.metadata.MetadataIndex",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.planner.WriteItem",  // of the plans that Megatron-core keeps
};

}  // namespace

class Rows::Cursor {
 public:
  Cursor(const Rows& rows, Row row) : at_(rows.bytes_.begin() + row) {}

  uint64_t next() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const uint8_t byte = *at_++;
      value |= uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) return value;
    }
  }
  void shape(size_t rank, Shape& out) {
    out.resize(rank);
    for (int64_t& n : out) n = static_cast<int64_t>(next());
  }

 private:
  std::deque<uint8_t>::const_iterator at_;
};

std::optional<uint8_t> Rows::wants(const pickle::Global& cls) const {
  const auto* at = std::ranges::find(kClasses, cls.full);
  if (at == std::end(kClasses)) return std::nullopt;
  return static_cast<uint8_t>(at - std::begin(kClasses));
}

bool Rows::read_sizes(const Value& value, Shape& out) const {
  out.clear();
  if (value.kind() != Kind::kTuple || static_cast<int64_t>(value.size()) > limits_.tensor_rank) return false;
  for (size_t i = 0; i < value.size(); ++i) {
    const auto n = value.at(i).integer();
    if (!n || *n < 0) return false;
    out.push_back(*n);
  }
  return true;
}

std::optional<uint32_t> Rows::fold(uint8_t cls, const Value& object) {
  const auto attribute = [&](const char* name) { return object.attribute(name); };
  switch (cls) {
    case kChunk:
      if (!read_sizes(attribute("offsets"), first_) || !read_sizes(attribute("sizes"), second_))
        return std::nullopt;
      return add_chunk(first_, second_);
    case kIndex: {
      const Value fqn = attribute("fqn"), offset = attribute("offset");
      const auto key = fqn.text();
      const bool has_offset = offset && !offset.is_none();
      if (!key || fqn.has_surrogates() || (has_offset && !read_sizes(offset, first_))) return std::nullopt;
      return add_index(*key, has_offset ? &first_ : nullptr);
    }
    case kPlace: {
      const auto file = attribute("relative_path").text();
      const auto offset = attribute("offset").integer(), length = attribute("length").integer();
      const Value transforms = attribute("transform_descriptors");
      if (!file || !offset || !length || *offset < 0 || *length < 0) return std::nullopt;
      if (transforms && !transforms.is_none()) return std::nullopt;
      return add_place(*file, *offset, *length, "");
    }
    default:
      return 0;
  }
}

Rows::Row Rows::begin() const {
  constexpr size_t kMost = 0xffffffff;
  if (bytes_.size() > kMost)
    throw refused("limit.memory", "expected chunks that are told in less than 4 GiB");
  return static_cast<Row>(bytes_.size());
}

void Rows::put(uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<uint8_t>(value | 0x80));
  bytes_.push_back(static_cast<uint8_t>(value));
}

void Rows::put(const Shape& values) {
  for (const int64_t value : values) put(static_cast<uint64_t>(value));
}

uint32_t Rows::number_of(std::string_view text) {
  if (const auto known = find_text(text)) return *known;
  const auto number = static_cast<uint32_t>(texts_.size());
  texts_.push_back(&numbers_.emplace(text, number).first->first);
  return number;
}

std::optional<uint32_t> Rows::find_text(std::string_view text) const {
  const auto at = numbers_.find(text);
  return at == numbers_.end() ? std::nullopt : std::optional(at->second);
}

Rows::Row Rows::add_chunk(const Shape& offsets, const Shape& sizes) {
  const Row row = begin();
  put(offsets.size());
  put(offsets);
  put(sizes.size());
  put(sizes);
  return row;
}

Rows::Row Rows::add_index(std::string_view key, const Shape* offsets) {
  const Row row = begin();
  put(number_of(key));
  put(offsets ? offsets->size() + 1 : 0);
  if (offsets) put(*offsets);
  return row;
}

Rows::Row Rows::add_place(std::string_view file, int64_t offset, int64_t length,
                          std::string_view transforms) {
  const Row row = begin();
  put(number_of(file));
  put(number_of(transforms));
  put(static_cast<uint64_t>(offset));
  put(static_cast<uint64_t>(length));
  return row;
}

void Rows::chunk(Row row, Shape& offsets, Shape& sizes) const {
  Cursor at(*this, row);
  at.shape(at.next(), offsets);
  at.shape(at.next(), sizes);
}

void Rows::index(Row row, Index& out) const {
  Cursor at(*this, row);
  out.key = static_cast<uint32_t>(at.next());
  const uint64_t rank = at.next();
  out.has_offsets = rank > 0;
  at.shape(rank > 0 ? rank - 1 : 0, out.offsets);
}

const std::string& Rows::key_of(Row index) const {
  return text(static_cast<uint32_t>(Cursor(*this, index).next()));
}

Rows::Place Rows::place(Row row) const {
  Cursor at(*this, row);
  Place out{};
  out.item.file = static_cast<uint32_t>(at.next());
  out.transforms = static_cast<uint32_t>(at.next());
  out.item.offset = static_cast<int64_t>(at.next());
  out.item.length = static_cast<int64_t>(at.next());
  return out;
}

}  // namespace uckpt::dcp
