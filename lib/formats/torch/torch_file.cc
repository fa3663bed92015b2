#include "lib/formats/torch/torch_file.h"

#include <algorithm>
#include <unordered_map>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/legacy_stream.h"
#include "lib/formats/torch/storage_table.h"
#include "lib/formats/torch/tensor_path.h"
#include "lib/formats/torch/tensor_table.h"
#include "lib/formats/torch/zip_directory.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/numpy.h"

namespace uckpt::torch {

namespace {

using pickle::Document;
using pickle::Kind;
using pickle::Value;

constexpr int64_t kSmallMember = 64;

// One storage's bytes lie in the member of its key, whole.
void locate_in_zip(const ZipDirectory& zip, StorageTable& table, std::vector<FileRecord>& records) {
  for (Storage& storage : table.storages()) {
    const ZipMember* member = zip.find(cat("data/", storage.key));
    if (!member)
      throw refused("tensor.record_missing",
                    cat("storage ", storage.key, " has no member data/", storage.key, " in the archive"));
    if (storage.item > 0 && member->size != storage.bytes) {
      throw refused("tensor.storage_size",
                    cat("storage ", storage.key, ": expected ", storage.numel, " elements in ", storage.bytes,
                        " bytes, found ", member->size, " bytes"))
          .in_member(member->name);
    }
    storage.offset = member->offset;
    storage.record = static_cast<uint32_t>(records.size());
    records.push_back({member->name, member->offset, member->size,
                       member->crc == 0 ? std::nullopt : std::optional(member->crc)});
  }
}

bool zip_is_big_endian(const ZipDirectory& zip) {
  const ZipMember* member = zip.find("byteorder");
  if (!member) return false;
  const Bytes bytes = zip.read(*member, kSmallMember);
  const std::string_view order(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (order == "little") return false;
  if (order == "big") return true;
  throw refused("tensor.byteorder", cat("expected the byte order little or big, found ", escape(order)))
      .in_member(member->name);
}

Error danger_error(const pickle::Danger& danger) {
  Error error =
      refused("pickle.dangerous", cat(danger.is_call ? "call of " : "mention of ", escape(danger.global),
                                      " at byte ", danger.at, ": expected data only"));
  return error.hint("\"uckpt inspect\" shows the file without running anything");
}

}  // namespace

struct TorchFile::Impl {
  std::shared_ptr<ByteSource> source;
  pickle::Limits limits;
  std::unique_ptr<Document> object;
  std::unique_ptr<TensorTable> tensors;
  std::vector<FileRecord> records;
  FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;
  bool legacy = false;
  std::optional<Error> refusal, cycle;
  // Which nodes hold a tensor or storage somewhere below; made when the first unknown class is asked about.
  mutable std::vector<uint8_t> bearing;

  void open_zip();
  void open_legacy();
  void open_bare();
  void read_object(const Document& document, std::string_view member);
  void take_globals(const Document& document);
  void check_numpy() const;
  void refuse(Error error, std::string_view member);
  bool bears_tensor(uint32_t node) const;
  std::optional<TensorInfo> hidden_tensor(const Value& value) const;
  std::optional<pickle::TensorLabel> label(const Value& value) const;
};

void TorchFile::Impl::refuse(Error error, std::string_view member) {
  if (refusal) return;
  error.in_file(source->name());
  if (!member.empty()) error.in_member(member);
  refusal = std::move(error);
}

void TorchFile::Impl::take_globals(const Document& document) {
  for (const pickle::Global& global : document.globals()) note_global(globals, global.full, global.trust);
}

void TorchFile::Impl::read_object(const Document& document, std::string_view member) {
  take_globals(document);
  if (document.danger()) refuse(danger_error(*document.danger()), member);
  if (!document.cyclic() || cycle) return;
  cycle =
      refused("pickle.cycle", "a value contains itself: it cannot be written out").in_file(source->name());
  if (!member.empty()) cycle->in_member(member);
}

// Arrays inside the pickle are checked once, so that no later view of them can fail.
void TorchFile::Impl::check_numpy() const {
  for (uint32_t id = 0; id < object->node_count(); ++id)
    if (object->node(id).kind == Kind::kCall) pickle::numpy_array(Value(object.get(), id));
}

void TorchFile::Impl::open_zip() {
  const ZipDirectory zip(*source);
  const ZipMember& member = *zip.find("data.pkl");
  pickle = {member.name, member.offset, member.size, member.crc};
  try {
    object = pickle::parse_whole(zip.read(member, limits.pickle_bytes), limits);
    read_object(*object, member.name);
    const bool script = zip.find("constants.pkl") || zip.has_folder("code");
    if (script) {
      Error error =
          refused("torch.torchscript", "a TorchScript archive holds a program: it cannot be converted");
      refuse(error.hint("save the module's state_dict() with torch.save"), "");
    }
    const bool big_endian = zip_is_big_endian(zip);
    StorageTable storages(*object, false);
    locate_in_zip(zip, storages, records);
    tensors = std::make_unique<TensorTable>(*object, std::move(storages), big_endian, limits.tensor_rank);
    check_numpy();
  } catch (Error& error) {
    throw error.in_member(member.name);
  }
}

void TorchFile::Impl::open_legacy() {
  legacy = true;
  LegacyStream stream = read_legacy(*source, limits);
  for (const auto* part : {&stream.magic, &stream.version, &stream.system, &stream.object, &stream.keys})
    read_object(**part, "");
  pickle = {"", stream.object_at, stream.object_size, std::nullopt};
  object = std::move(stream.object);
  StorageTable storages(*object, true);
  locate_storages(*source, stream, storages);
  for (Storage& storage : storages.storages()) {
    storage.record = static_cast<uint32_t>(records.size());
    records.push_back({storage.key, storage.offset, storage.bytes, std::nullopt});
  }
  tensors = std::make_unique<TensorTable>(*object, std::move(storages), false, limits.tensor_rank);
  check_numpy();
}

// A plain pickle.dump: values and arrays, no storages.
void TorchFile::Impl::open_bare() {
  if (source->size() > limits.pickle_bytes)
    throw refused("limit.pickle_bytes", cat("expected a pickle of at most ", limits.pickle_bytes,
                                            " bytes, found ", source->size()));
  object = pickle::parse_whole(source->read_range(0, source->size()), limits);
  pickle = {"", 0, source->size(), std::nullopt};
  read_object(*object, "");
  StorageTable storages(*object, false);
  if (!storages.empty())
    throw refused("torch.storage", "a bare pickle speaks of storages, and there are none in the file");
  tensors = std::make_unique<TensorTable>(*object, std::move(storages), false, limits.tensor_rank);
  check_numpy();
}

std::unique_ptr<TorchFile> TorchFile::open(std::shared_ptr<ByteSource> source, const pickle::Limits& limits) {
  auto impl = std::make_unique<Impl>();
  impl->source = std::move(source);
  impl->limits = limits;
  try {
    const Bytes head = impl->source->read_range(0, std::min<int64_t>(impl->source->size(), 512));
    if (is_tar(head)) throw refused("torch.tar", "the tar format of torch before 0.2 is not read");
    if (head.size() >= 2 && head[0] == 'P' && head[1] == 'K')
      impl->open_zip();
    else if (looks_like_legacy(head))
      impl->open_legacy();
    else if (!head.empty() && head[0] == 0x80)
      impl->open_bare();
    else
      throw refused("torch.format", "expected a torch.save file (zip or pickle), found other bytes");
  } catch (Error& error) {
    throw error.in_file(impl->source->name());
  }
  return std::unique_ptr<TorchFile>(new TorchFile(std::move(impl)));
}

TorchFile::TorchFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TorchFile::~TorchFile() = default;

Value TorchFile::root() const { return impl_->object->root(); }
const std::vector<FileRecord>& TorchFile::records() const { return impl_->records; }
FileRecord TorchFile::pickle_record() const { return impl_->pickle; }
const std::map<std::string, GlobalClass>& TorchFile::globals() const { return impl_->globals; }
bool TorchFile::is_legacy() const { return impl_->legacy; }
const std::optional<Error>& TorchFile::refusal() const {
  return impl_->refusal ? impl_->refusal : impl_->cycle;
}
std::optional<Error> TorchFile::refusal_but_cycle() const { return impl_->refusal; }

bool TorchFile::Impl::bears_tensor(uint32_t node) const {
  if (bearing.empty()) bearing = nodes_above(*object, [this](uint32_t id) { return tensors->has(id); });
  return bearing[node] != 0;
}

// A class we do not know may hold a tensor in its own way: it is listed, and never taken for one.
std::optional<TensorInfo> TorchFile::Impl::hidden_tensor(const Value& value) const {
  const bool opaque = is_call(value.kind()) && value.global_class() != GlobalClass::kKnown;
  if (!opaque || !bears_tensor(value.id())) return std::nullopt;
  TensorInfo info;
  info.dtype = DType::kU8;
  info.refusal = cat("a tensor inside the unknown class ", escape(value.global_name()));
  return info;
}

std::optional<TensorInfo> TorchFile::tensor(const Value& value) const {
  if (!value) return std::nullopt;
  if (auto info = impl_->tensors->get(value.id())) return info;
  return impl_->hidden_tensor(value);
}

std::optional<TorchFile::Inline> TorchFile::numpy(const Value& value) const {
  const auto array = pickle::numpy_array(value);
  if (!array) return std::nullopt;
  return Inline{array->dtype, array->shape, array->row_major(), array->is_scalar};
}

std::optional<pickle::TensorLabel> TorchFile::Impl::label(const Value& value) const {
  const auto info = tensors->get(value.id());
  if (!info) return std::nullopt;
  const std::string_view dtype = uckpt::info(info->dtype).torch;
  return pickle::TensorLabel{info->refusal.empty() ? std::string(dtype) : std::string(), info->shape,
                             info->refusal};
}

std::string TorchFile::json() const { return json(root()); }

std::string TorchFile::json(const Value& value) const {
  return pickle::to_json(value, impl_->limits, [this](const Value& v) { return impl_->label(v); });
}

std::string TorchFile::tree(size_t max_lines) const {
  return pickle::to_tree(root(), max_lines, [this](const Value& v) { return impl_->label(v); });
}

TorchFile::Registered TorchFile::register_with(Catalog& catalog, std::shared_ptr<ByteSource> file) const {
  Registered out{catalog.add_file(std::move(file)), {}};
  for (const FileRecord& record : impl_->records) {
    if (!record.crc) {
      out.records.push_back(kNoRecord);
      continue;
    }
    out.records.push_back(catalog.add_record(out.file, record.offset, record.size, *record.crc, record.name));
  }
  return out;
}

bool TensorInfo::contiguous() const {
  int64_t expected = 1;
  if (std::ranges::find(shape, 0) != shape.end()) return true;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] != 1 && stride[d] != expected) return false;
    expected *= shape[d];
  }
  return true;
}

bool is_tar(ByteSpan head) {
  constexpr std::string_view kTarMagic = "ustar";
  constexpr size_t kAt = 257;
  return head.size() >= kAt + kTarMagic.size() &&
         std::equal(kTarMagic.begin(), kTarMagic.end(), head.begin() + kAt);
}

bool looks_like_torch(ByteSpan head) {
  const bool zip = head.size() >= 4 && load_le<uint32_t>(head.data()) == 0x04034b50;
  const bool pickle = head.size() >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5;
  return zip || pickle || is_tar(head);
}

}  // namespace uckpt::torch
