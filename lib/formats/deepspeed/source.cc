#include "lib/formats/deepspeed/source.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/guards.h"

namespace uckpt::deepspeed {

namespace {

constexpr int64_t kSmallRecord = 4096;  // read whole to verify a scalar's checksum

template <class T>
Scalar make_scalar(DType dtype, T value) {
  Scalar s;
  s.dtype = dtype;
  s.size = sizeof value;
  store_le(s.bytes.data(), value);
  return s;
}

template <class T>
std::string number_text(const Scalar& s) {
  return cat(load_le<T>(s.bytes.data()));
}

}  // namespace

std::string Scalar::text() const {
  switch (dtype) {
    case DType::kF32:
      return number_text<float>(*this);
    case DType::kF64:
      return number_text<double>(*this);
    case DType::kI64:
      return number_text<int64_t>(*this);
    case DType::kI32:
      return number_text<int32_t>(*this);
    case DType::kBool:
      return bytes[0] ? "True" : "False";
    default:
      break;
  }
  std::string out = cat(name_of(dtype), " 0x");
  for (int i = size; i-- > 0;) out += hex(bytes[static_cast<size_t>(i)], 2);
  return out;
}

std::optional<Scalar> scalar_of(const pickle::Value& value) {
  if (!value) return std::nullopt;
  if (const auto b = value.boolean()) return make_scalar<uint8_t>(DType::kBool, *b);
  if (const auto i = value.integer()) return make_scalar(DType::kI64, *i);
  if (const auto r = value.real()) return make_scalar(DType::kF64, *r);
  return std::nullopt;
}

void Source::keep(const torch::TorchFile& file, torch::TensorInfo& info) {
  if (info.record == kNoRecord) return;
  const auto [it, fresh] = own_.try_emplace(info.record, static_cast<uint32_t>(records_.size()));
  if (fresh) records_.push_back(file.records().at(info.record));
  info.record = it->second;
}

Place Source::place_of(const torch::TorchFile& file, torch::TensorInfo info) {
  if (!info.refusal.empty())
    throw refused("deepspeed.malformed", cat("a tensor cannot be read: ", info.refusal));
  if (!info.contiguous())
    throw refused("deepspeed.malformed", "expected a tensor that lies back to back, found strides");
  keep(file, info);
  return {info.offset, info.numel(), info.record, info.dtype, info.flags};
}

Scalar Source::read_scalar(const torch::TorchFile& file, const torch::TensorInfo& info) const {
  Scalar s;
  s.dtype = info.dtype;
  s.shape = info.shape;
  const int size = item_size(info.dtype);
  if (info.numel() != 1 || size <= 0 || size > static_cast<int>(s.bytes.size())) {
    throw refused("deepspeed.malformed",
                  cat("expected one number, found ", shape_text(info.shape), " of ", name_of(info.dtype)));
  }
  s.size = static_cast<uint8_t>(size);
  if (info.record != kNoRecord) {
    const torch::FileRecord& record = file.records().at(info.record);
    if (record.size <= kSmallRecord) torch::check_crc(*bytes_, record);
  }
  bytes_->read_at(info.offset, {s.bytes.data(), s.size});
  if (info.flags & ~kByteSwapped)
    throw refused("deepspeed.malformed", "expected a plain number, found a conjugated one");
  if (info.flags & kByteSwapped) std::reverse(s.bytes.begin(), s.bytes.begin() + s.size);
  return s;
}

std::optional<uint64_t> Source::fingerprint(uint32_t record) const {
  if (record == kNoRecord || !records_[record].crc) return std::nullopt;
  return uint64_t{*records_[record].crc} << 32 ^ static_cast<uint64_t>(records_[record].size);
}

FileId Source::file_id(Catalog& catalog) {
  if (id_) return *id_;
  id_ = catalog.add_file(bytes_);
  ids_.reserve(records_.size());
  for (torch::FileRecord& r : records_) {
    if (!r.crc) {
      ids_.push_back(kNoRecord);
      continue;
    }
    ids_.push_back(catalog.add_record(*id_, r.offset, r.size, *r.crc, r.name));
  }
  return *id_;
}

}  // namespace uckpt::deepspeed
