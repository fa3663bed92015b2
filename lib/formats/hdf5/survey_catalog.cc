#include "lib/formats/hdf5/survey_catalog.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"
#include "lib/formats/hdf5/decoded_file.h"
#include "lib/formats/hdf5/element_type.h"
#include "lib/formats/settings_json.h"

namespace uckpt::hdf5 {
namespace {

constexpr size_t kMaxLinkWarnings = 20;

Error damaged(std::string message, const Entry& entry) {
  return refused("hdf5.damaged", std::move(message)).in_tensor(entry.path);
}

// Where an entry goes in a consolidated file.
struct Role {
  enum class Kind { kTensor, kObjectPickle, kObjectJson, kLayout, kSettings, kDigest, kIgnored };
  Kind kind = Kind::kIgnored;
  std::string state, name;  // of a tensor; `name` is the origin of an object
};

Role role_of(const std::string& path, bool is_consolidated) {
  if (!is_consolidated) return {Role::Kind::kTensor, std::string(state::kParam), path};
  const size_t slash = path.find('/');
  if (slash == std::string::npos) {
    if (path == place::kLayout) return {Role::Kind::kLayout, {}, {}};
    if (path == place::kSettings) return {Role::Kind::kSettings, {}, {}};
    if (path == place::kDigest) return {Role::Kind::kDigest, {}, {}};
    return {Role::Kind::kTensor, std::string(state::kOther), unescape_name(path)};
  }
  const std::string group = path.substr(0, slash), rest = path.substr(slash + 1);
  if (group != place::kObjects) return {Role::Kind::kTensor, unescape_name(group), unescape_name(rest)};
  const size_t second = rest.find('/');
  const std::string part = second == std::string::npos ? "" : rest.substr(second + 1);
  const std::string origin = unescape_name(rest.substr(0, second));
  if (part == place::kPickle) return {Role::Kind::kObjectPickle, {}, origin};
  if (part == place::kJson) return {Role::Kind::kObjectJson, {}, origin};
  return {};
}

// Bytes of the entry's elements as they are stored.
int64_t stored_size(const Entry& entry) {
  return numel_of(entry.shape) * (entry.kind == Entry::Kind::kText ? 1 : item_size(entry.dtype));
}

struct Place {
  FileId file = 0;
  int64_t offset = 0, bytes = 0;
};

class Builder {
 public:
  Builder(const Survey& survey, std::shared_ptr<ByteSource> source, const CatalogOptions& options)
      : survey_(survey), options_(options), file_size_(source->size()) {
    catalog_.kind = "hdf5";
    catalog_.path = source->name();
    decoded_ = std::make_shared<DecodedFile>(source->name());
    catalog_.add_file(std::move(source));
  }

  Catalog build() {
    describe();
    check_overlaps();
    read_digests();
    for (const uint32_t index : sorted_entries()) add(index);
    resolve_aliases();
    add_objects();  // last: their texts may need decoding, and a decoded file is complete before it is read
    report();
    return std::move(catalog_);
  }

 private:
  void describe();
  void describe_consolidated();
  std::vector<uint32_t> sorted_entries() const;
  void check_overlaps() const;
  void read_digests();
  std::optional<uint64_t> digest_of(const Entry& entry) const;
  Place place_of(const Entry& entry);
  void add(uint32_t index);
  void add_tensor(uint32_t index, const Role& role);
  void set_type(const Entry& entry, Tensor& tensor) const;
  void resolve_aliases();
  void add_objects();
  Place place_of_text(const Entry& entry);
  void take_rules(std::string text);
  void take_settings(const std::string& text);
  std::string read_text(const Place& place) const;
  void report();

  const Survey& survey_;
  const CatalogOptions& options_;
  int64_t file_size_;
  Catalog catalog_;
  std::shared_ptr<DecodedFile> decoded_;
  std::optional<FileId> decoded_id_;
  std::unordered_map<uint32_t, uint32_t> tensor_of_;  // entry -> tensor
  std::unordered_set<std::string> paths_;
  std::unordered_map<std::string, uint64_t> digests_;           // by the dataset's path
  std::map<std::string, std::array<const Entry*, 2>> objects_;  // origin -> pickle, json
  const Entry *layout_ = nullptr, *settings_ = nullptr;
  std::vector<const Entry*> links_;
};

void Builder::describe() {
  if (survey_.is_consolidated) return describe_consolidated();
  catalog_.description = "HDF5 file";
}

void Builder::describe_consolidated() {
  using namespace root_attribute;
  const auto integer = [&](const char* name) -> std::optional<int64_t> {
    const auto found = survey_.integers.find(name);
    return found == survey_.integers.end() ? std::nullopt : std::optional(found->second);
  };
  const auto version = integer(kVersion);
  if (!version || *version < 1) throw refused("hdf5.damaged", "its root has no format version");
  if (*version > kFormatVersion)
    throw refused("hdf5.version",
                  cat("its format is too new: expected version ", kFormatVersion, ", found ", *version))
        .hint("a newer uckpt reads it");

  catalog_.description = "consolidated checkpoint";
  catalog_.facts.emplace_back("format", cat(kFormatName, " ", *version));
  for (const auto& [attribute, fact] :
       {std::pair(kSourceKind, "made from"), std::pair(kCreatedBy, "made by")})
    if (const auto found = survey_.texts.find(attribute); found != survey_.texts.end())
      catalog_.facts.emplace_back(fact, found->second);
  if (const auto count = integer(kParameterCount)) catalog_.facts.emplace_back("parameters", cat(*count));

  catalog_.iteration = integer(kIteration);
  if (const auto stage = integer(kZeroStage)) {
    if (*stage < 0 || *stage > 3) throw refused("hdf5.damaged", cat("its ZeRO stage is ", *stage));
    catalog_.zero_stage = static_cast<int>(*stage);
  }
  for (const auto& [name, degree] : {std::pair(kTp, &catalog_.mesh.tp), std::pair(kPp, &catalog_.mesh.pp),
                                     std::pair(kDp, &catalog_.mesh.dp), std::pair(kEp, &catalog_.mesh.ep)}) {
    *degree = integer(name).value_or(1);
    if (*degree < 1) throw refused("hdf5.damaged", cat("its ", name, " degree is ", *degree));
  }
}

std::vector<uint32_t> Builder::sorted_entries() const {
  std::vector<uint32_t> order(survey_.entries.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, natural_less,
                           [&](uint32_t i) -> std::string_view { return survey_.entries[i].path; });
  return order;
}

// Datasets never share bytes in a file that is whole; where they do, one file could claim to be a thousand.
void Builder::check_overlaps() const {
  std::vector<const Entry*> direct;
  for (const Entry& entry : survey_.entries)
    if ((entry.kind == Entry::Kind::kTensor || entry.kind == Entry::Kind::kText) && entry.offset &&
        stored_size(entry) > 0)
      direct.push_back(&entry);
  for (const Entry* entry : direct)
    if (!range_inside(*entry->offset, stored_size(*entry), file_size_))
      throw damaged(cat("its bytes lie outside the file: expected ", stored_size(*entry), " bytes at byte ",
                        *entry->offset, ", found a file of ", file_size_, " bytes"),
                    *entry);
  std::ranges::sort(direct, {}, [](const Entry* entry) { return *entry->offset; });
  for (size_t i = 1; i < direct.size(); ++i)
    if (*direct[i]->offset < *direct[i - 1]->offset + stored_size(*direct[i - 1]))
      throw damaged(cat("it shares bytes with `", escape(direct[i - 1]->path), "`"), *direct[i]);
}

Place Builder::place_of(const Entry& entry) {
  const int64_t bytes = stored_size(entry);
  if (entry.stored_bytes < 0 || entry.stored_bytes > file_size_ ||
      (bytes > 0 && (bytes - 1) / kMaxExpansion >= entry.stored_bytes))
    throw damaged(cat("it declares ", bytes, " bytes and claims ", entry.stored_bytes, " in a file of ",
                      file_size_, " bytes"),
                  entry);
  if (bytes == 0) return {0, 0, 0};
  if (entry.offset) return {0, *entry.offset, bytes};
  if (!decoded_id_) decoded_id_ = catalog_.add_file(decoded_);
  const int64_t item = entry.kind == Entry::Kind::kText ? 1 : item_size(entry.dtype);
  return {*decoded_id_, decoded_->add(entry.path, entry.shape, entry.chunk, item), bytes};
}

void Builder::add(uint32_t index) {
  const Entry& entry = survey_.entries[index];
  if (entry.kind == Entry::Kind::kLink) {
    links_.push_back(&entry);
    return;
  }
  Role role = role_of(entry.path, survey_.is_consolidated);
  switch (role.kind) {
    case Role::Kind::kTensor:
      return add_tensor(index, role);
    case Role::Kind::kObjectPickle:
      objects_[role.name][0] = &entry;
      return;
    case Role::Kind::kObjectJson:
      objects_[role.name][1] = &entry;
      return;
    case Role::Kind::kLayout:
      if (entry.kind == Entry::Kind::kText) layout_ = &entry;
      return;
    case Role::Kind::kSettings:
      if (entry.kind == Entry::Kind::kText) settings_ = &entry;
      return;
    case Role::Kind::kDigest:  // read already
    case Role::Kind::kIgnored:
      return;
  }
}

// The rows of /digest, if there are any.
void Builder::read_digests() {
  if (!survey_.is_consolidated) return;
  const auto found = std::ranges::find(survey_.entries, std::string(place::kDigest), &Entry::path);
  if (found == survey_.entries.end() || found->kind != Entry::Kind::kRows) return;
  const int64_t rows = found->shape.empty() ? 0 : found->shape[0], bytes = found->stored_bytes;
  const int64_t row_bytes = rows > 0 ? bytes / rows : 0, width = row_bytes - kDigestBytes;
  if (width <= 0 || row_bytes * rows != bytes || !found->offset ||
      !range_inside(*found->offset, bytes, file_size_))
    throw damaged(cat("expected ", rows, " rows inside the file, found ", bytes, " bytes"), *found);
  constexpr int64_t kBlock = 1 << 20;
  const int64_t step = std::max<int64_t>(1, kBlock / row_bytes);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    const Bytes block = catalog_.files[0]->read_range(*found->offset + first * row_bytes, count * row_bytes);
    for (int64_t r = 0; r < count; ++r) {
      const auto* row = reinterpret_cast<const char*>(block.data()) + r * row_bytes;
      std::string path(row, strnlen(row, static_cast<size_t>(width)));
      digests_.emplace(std::move(path), load_le<uint64_t>(block.data() + r * row_bytes + width));
    }
  }
}

std::optional<uint64_t> Builder::digest_of(const Entry& entry) const {
  const auto found = digests_.find(entry.path);
  return found == digests_.end() ? std::nullopt : std::optional(found->second);
}

void Builder::add_tensor(uint32_t index, const Role& role) {
  const Entry& entry = survey_.entries[index];
  Tensor tensor{};
  tensor.state = role.state;
  tensor.name = role.name;
  tensor.dtype = entry.dtype;
  tensor.shape = entry.shape;
  if (!paths_.insert(tensor.path()).second) throw damaged("two datasets have this name", entry);
  if (entry.kind == Entry::Kind::kOther || entry.kind == Entry::Kind::kRows) {
    tensor.refusal = entry.note;
  } else if (entry.kind == Entry::Kind::kText) {
    tensor.refusal = "its elements are no plain numbers but text";
    tensor.shape.clear();
  } else if (entry.kind == Entry::Kind::kTensor) {
    set_type(entry, tensor);
    tensor.digest = digest_of(entry);
    const Place place = place_of(entry);
    const uint32_t mark = catalog_.piece_mark();
    const int64_t numel = numel_of(tensor.shape);
    if (place.bytes > 0) {
      // A digest is of little-endian bytes.
      const uint32_t record =
          tensor.digest && !entry.big_endian
              ? catalog_.add_digest(place.file, place.offset, place.bytes, *tensor.digest, tensor.path())
              : kNoRecord;
      catalog_.add_flat(place.file, record, place.offset, numel, 0, numel,
                        entry.big_endian ? kByteSwapped : kPlain);
    }
    tensor.pieces = catalog_.pieces_since(mark);
    tensor.layout = cat(place.file == 0                    ? "contiguous"
                        : entry.stored_bytes < place.bytes ? "packed"
                                                           : "in blocks",
                        entry.big_endian ? ", big-endian" : "");
  }
  tensor_of_.emplace(index, static_cast<uint32_t>(catalog_.tensors.size()));
  catalog_.tensors.push_back(std::move(tensor));
}

// What HDF5's own type leaves open, our attributes say; they must agree with it.
void Builder::set_type(const Entry& entry, Tensor& tensor) const {
  if (!entry.module_dtype.empty()) {
    tensor.module_dtype = dtype_from_name(entry.module_dtype);
    if (!tensor.module_dtype)
      throw damaged(cat("its module has the unknown type `", escape(entry.module_dtype), "`"), entry);
  }
  if (entry.dtype_name.empty()) return;
  const auto named = dtype_from_name(entry.dtype_name);
  const DType stored = named && !stored_as_bytes(*named) ? *named : DType::kU8;
  if (!named || stored != entry.dtype)
    throw damaged(cat("it is marked as `", escape(entry.dtype_name), "`, but holds ", name_of(entry.dtype)),
                  entry);
  tensor.dtype = *named;
  if (bits_of(*named) % 8 == 0) return;
  const auto numel = entry.logical_shape ? checked_product(*entry.logical_shape) : std::nullopt;
  if (!numel || bytes_of(*named, *numel) != stored_size(entry))
    throw damaged("its attribute `shape` does not fit its bytes", entry);
  tensor.shape = *entry.logical_shape;
}

// A further name of a refused dataset is refused with it.
void Builder::resolve_aliases() {
  for (const auto& [entry, tensor] : tensor_of_) {
    if (survey_.entries[entry].kind != Entry::Kind::kAlias) continue;
    const auto source = tensor_of_.find(survey_.entries[entry].source);
    if (source == tensor_of_.end())
      throw damaged("it is a second name of something that is no tensor", survey_.entries[entry]);
    const Tensor& target = catalog_.tensors[source->second];
    Tensor& alias = catalog_.tensors[tensor];
    alias.alias = source->second;
    alias.dtype = target.dtype;
    alias.shape = target.shape;
    alias.refusal = target.refusal;
    alias.module_dtype = target.module_dtype;
  }
}

void Builder::add_objects() {
  std::vector<std::pair<size_t, Place>> texts;  // all are placed before the first is read
  for (const auto& [origin, parts] : objects_) {
    const auto [pickle, json] = parts;
    Object object{};
    object.origin = origin;
    if (pickle && pickle->kind == Entry::Kind::kTensor) {
      const Place place = place_of(*pickle);
      object.file = place.file;
      object.offset = place.offset;
      object.size = place.bytes;
      object.digest = digest_of(*pickle);
      if (object.digest && object.size > 0)
        object.record = catalog_.add_digest(object.file, object.offset, object.size, *object.digest,
                                            cat(state::kObjects, "/", origin));
    } else {
      catalog_.warnings.push_back(
          cat("the original bytes of the objects of `", escape(origin), "` are not in the file"));
    }
    if (options_.want_objects && json && json->kind == Entry::Kind::kText)
      texts.emplace_back(catalog_.objects.size(), place_of_text(*json));
    catalog_.objects.push_back(std::move(object));
  }
  const std::optional<Place> layout = layout_ ? std::optional(place_of_text(*layout_)) : std::nullopt;
  const std::optional<Place> settings = settings_ ? std::optional(place_of_text(*settings_)) : std::nullopt;
  for (const auto& [index, place] : texts) catalog_.objects[index].json = read_text(place);
  if (layout) take_rules(read_text(*layout));
  if (settings) take_settings(read_text(*settings));
}

void Builder::take_settings(const std::string& text) {
  try {
    settings_and_arguments_from(text, catalog_.settings, catalog_.arguments);
  } catch (const Error& e) {
    catalog_.warnings.push_back(cat("its settings are not read: ", e.message()));
  }
}

// A program without a layout, its own or imported, says nothing: every tensor was whole.
void Builder::take_rules(std::string text) {
  if (text.find("\nlayout ") != std::string::npos || text.find("\nimport ") != std::string::npos)
    catalog_.rules = std::move(text);
}

Place Builder::place_of_text(const Entry& entry) {
  if (stored_size(entry) > options_.max_json_bytes)
    throw refused("limit.json_bytes", cat("a text is too long: expected at most ", options_.max_json_bytes,
                                          " bytes, found ", stored_size(entry)))
        .in_tensor(entry.path);
  return place_of(entry);
}

std::string Builder::read_text(const Place& place) const {
  const Bytes bytes = catalog_.files[place.file]->read_range(place.offset, place.bytes);
  std::string text(bytes.begin(), bytes.end());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

void Builder::report() {
  for (size_t i = 0; i < std::min(links_.size(), kMaxLinkWarnings); ++i)
    catalog_.warnings.push_back(
        cat("`", escape(links_[i]->path), "` is ", links_[i]->note, ": it is not followed"));
  if (links_.size() > kMaxLinkWarnings)
    catalog_.warnings.push_back(cat(links_.size() - kMaxLinkWarnings, " more links are not followed"));
  if (decoded_->size() > 0)
    catalog_.facts.emplace_back(
        "decoded on use", cat(human_bytes(static_cast<uint64_t>(decoded_->size())), ", into a scratch file"));
}

}  // namespace

Catalog catalog_of(const Survey& survey, std::shared_ptr<ByteSource> source, const CatalogOptions& options) {
  return Builder(survey, std::move(source), options).build();
}

}  // namespace uckpt::hdf5
