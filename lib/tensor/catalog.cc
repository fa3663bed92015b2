#include "lib/tensor/catalog.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/text.h"

namespace uckpt {

void Catalog::add_piece(FileId file, uint32_t record, int64_t offset, std::span<const Axis> box,
                        uint8_t flags) {
  pieces.push_back(
      {offset, file, record, static_cast<uint32_t>(axes.size()), static_cast<uint8_t>(box.size()), flags});
  axes.insert(axes.end(), box.begin(), box.end());
}

void Catalog::add_flat(FileId file, uint32_t record, int64_t offset, int64_t numel, int64_t start,
                       int64_t extent, uint8_t flags) {
  const Axis axis{numel, start, extent, 1};
  add_piece(file, record, offset, {&axis, 1}, flags);
}

void Catalog::add_whole(FileId file, uint32_t record, int64_t offset, const Shape& shape,
                        std::span<const int64_t> strides, uint8_t flags) {
  std::vector<Axis> box;
  for (size_t d = 0; d < shape.size(); ++d) box.push_back({shape[d], 0, shape[d], strides[d]});
  add_piece(file, record, offset, box, flags);
}

void Catalog::add_literal(ByteSpan bytes, int64_t numel) {
  const auto offset = static_cast<int64_t>(literals.size());
  literals.insert(literals.end(), bytes.begin(), bytes.end());
  add_flat(kLiteral, kNoRecord, offset, numel, 0, numel);
}

FileId Catalog::add_file(std::shared_ptr<ByteSource> file) {
  files.push_back(std::move(file));
  return static_cast<FileId>(files.size() - 1);
}

uint32_t Catalog::add_record(FileId file, int64_t offset, int64_t size, uint32_t crc, std::string_view name) {
  if (record_names.empty() || record_names.back() != name) record_names.emplace_back(name);
  records.push_back({offset, size, file, crc, static_cast<uint32_t>(record_names.size() - 1), false});
  return static_cast<uint32_t>(records.size() - 1);
}

uint32_t Catalog::add_digest(FileId file, int64_t offset, int64_t size, uint64_t crc64,
                             std::string_view name) {
  const size_t at = literals.size();
  literals.resize(at + sizeof crc64);
  store_le(literals.data() + at, crc64);
  const uint32_t record = add_record(file, offset, size, static_cast<uint32_t>(at), name);
  records.back().is_digest = true;
  return record;
}

uint64_t Catalog::digest_of(const Record& record) const {
  return load_le<uint64_t>(literals.data() + record.crc);
}

uint32_t Catalog::add_object_tensors() {
  const auto first = static_cast<uint32_t>(tensors.size());
  for (const Object& object : objects) {
    const uint32_t mark = piece_mark();
    add_flat(object.file, object.record, object.offset, object.size, 0, object.size);
    Tensor t{};
    t.name = object.origin;
    t.state = state::kObjects;
    t.dtype = DType::kU8;
    t.shape = {object.size};
    t.pieces = pieces_since(mark);
    t.digest = object.digest;
    tensors.push_back(std::move(t));
  }
  return first;
}

int64_t numel_of(const Shape& shape) { return checked_product(shape).value_or(INT64_MAX); }

void Catalog::warn_of_unknown_classes() {
  for (const auto& [name, trust] : globals)
    if (trust == GlobalClass::kUnknown)
      warnings.push_back(cat("class ", escape(name), " is not known: kept as plain data"));
}

void note_global(std::map<std::string, GlobalClass>& globals, const std::string& name, GlobalClass trust) {
  GlobalClass& known = globals.try_emplace(name, trust).first->second;
  known = std::max(known, trust);
}

void merge_globals(std::map<std::string, GlobalClass>& into, const std::map<std::string, GlobalClass>& from) {
  for (const auto& [name, trust] : from) note_global(into, name, trust);
}

int64_t units_of(const Tensor& tensor) {
  return item_size(tensor.dtype) > 0 ? numel_of(tensor.shape) : bytes_of(tensor);
}

int64_t bytes_of(const Tensor& tensor) { return bytes_of(tensor.dtype, numel_of(tensor.shape)).value_or(0); }

}  // namespace uckpt
