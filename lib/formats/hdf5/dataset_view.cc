#include "lib/formats/hdf5/dataset_view.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"
#include "lib/formats/hdf5/element_type.h"

namespace uckpt::hdf5 {
namespace {

constexpr size_t kMaxAttributeBytes = 64 << 10;
constexpr hsize_t kMaxAttributes = 4096;
constexpr int64_t kMaxChunkBytes = 256 << 20;

Entry other(Entry entry, std::string note) {
  entry.kind = Entry::Kind::kOther;
  entry.note = std::move(note);
  return entry;
}

struct Extent {
  Shape shape;
  std::string problem;
};

Extent read_extent(hid_t dataset) {
  const Handle space = checked(H5Dget_space(dataset), "read a dataspace");
  const H5S_class_t kind = H5Sget_simple_extent_type(space);
  if (kind == H5S_SCALAR) return {};
  if (kind != H5S_SIMPLE)
    return {{}, "it has no elements at all, not even none in a shape (a null dataspace)"};
  std::array<hsize_t, H5S_MAX_RANK> dims{};
  const int rank = checked_call(H5Sget_simple_extent_ndims(space), "read a dataspace");
  if (static_cast<size_t>(rank) > dims.size()) return {{}, "it has too many dimensions"};
  checked_call(H5Sget_simple_extent_dims(space, dims.data(), nullptr), "read a dataspace");
  Extent extent{Shape(dims.begin(), dims.begin() + rank), {}};
  // Even beside a zero the other sizes must multiply to something countable.
  Shape sizes = extent.shape;
  for (int64_t& size : sizes) size = size == 0 ? 1 : size;
  const auto numel = checked_product(sizes);
  if (!numel || !checked_mul(*numel, 16))
    return {{}, cat("its declared shape ", shape_text(extent.shape), " is beyond all storage")};
  return extent;
}

// Empty if all filters are ones that only rearrange, pack or check bytes inside the library.
std::string foreign_filter(hid_t properties) {
  const int count = checked_call(H5Pget_nfilters(properties), "read the filters");
  for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter =
        H5Pget_filter2(properties, i, &flags, &values, nullptr, name.size() - 1, name.data(), &config);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
      return cat("it is packed by the filter ", static_cast<int>(filter), " (", name.data(),
                 "): only deflate, shuffle and ", "fletcher32 are read");
  }
  return {};
}

struct Layout {
  std::optional<int64_t> offset;
  int64_t stored_bytes = 0;
  Shape chunk;
  std::string problem;
};

void read_chunked(hid_t properties, const Shape& shape, int64_t item_bytes, Layout& layout) {
  layout.problem = foreign_filter(properties);
  if (!layout.problem.empty()) return;
  std::array<hsize_t, H5S_MAX_RANK> dims{};
  const int rank = checked_call(H5Pget_chunk(properties, static_cast<int>(dims.size()), dims.data()),
                                "read the chunk's shape");
  layout.chunk.assign(dims.begin(), dims.begin() + std::min<int>(rank, H5S_MAX_RANK));
  const auto numel = checked_product(layout.chunk);
  const auto bytes = numel ? checked_mul(*numel, item_bytes) : std::nullopt;
  if (layout.chunk.size() != shape.size() || !bytes || *bytes == 0)
    layout.problem = "its chunks do not fit its shape";
  else if (*bytes > kMaxChunkBytes)
    layout.problem = cat("its chunks are too large to decode: expected at most ", kMaxChunkBytes,
                         " bytes, found ", *bytes);
}

Layout read_layout(hid_t dataset, const Shape& shape, int64_t item_bytes) {
  Layout layout;
  // Only bytes that lie in this file as they are have an offset; asking for properties costs more than all
  // the rest.
  const haddr_t offset = H5Dget_offset(dataset);
  layout.stored_bytes = static_cast<int64_t>(H5Dget_storage_size(dataset));
  if (offset != HADDR_UNDEF) {
    layout.offset = static_cast<int64_t>(offset);
    return layout;
  }
  const Handle properties = checked(H5Dget_create_plist(dataset), "read a dataset's properties");
  switch (H5Pget_layout(properties)) {
    case H5D_CONTIGUOUS:
      if (checked_call(H5Pget_external_count(properties), "read a dataset's properties") > 0)
        layout.problem = "its bytes are in another file (external storage), which is never read";
      break;
    case H5D_CHUNKED:
      read_chunked(properties, shape, item_bytes, layout);
      break;
    case H5D_COMPACT:
      layout.chunk = shape;
      break;
    case H5D_VIRTUAL:
      layout.problem = "it is put together from other datasets (virtual), which are not followed";
      break;
    default:
      layout.problem = "its bytes are stored in a way unknown to this version";
  }
  return layout;
}

// A path in bytes of a fixed number, then the CRC-64: how our /digest is made.
bool is_digest_row(hid_t type) {
  if (H5Tget_class(type) != H5T_COMPOUND || H5Tget_nmembers(type) != 2) return false;
  const size_t width = H5Tget_member_offset(type, 1);
  const Handle path(H5Tget_member_type(type, 0)), sum(H5Tget_member_type(type, 1));
  return H5Tget_size(type) == width + sizeof(uint64_t) && H5Tget_member_offset(type, 0) == 0 && path >= 0 &&
         H5Tget_class(path) == H5T_STRING && H5Tis_variable_str(path) == 0 && H5Tget_size(path) == width &&
         sum >= 0 && H5Tequal(sum, H5T_STD_U64LE) > 0;
}

void describe_rows(hid_t dataset, int64_t row_bytes, Entry& entry) {
  if (entry.shape.size() != 1 || entry.shape[0] == 0) return;
  const Layout layout = read_layout(dataset, entry.shape, row_bytes);
  if (!layout.problem.empty() || !layout.offset) return;
  entry.kind = Entry::Kind::kRows;
  entry.offset = layout.offset;
  entry.stored_bytes = layout.stored_bytes;
}

void read_marks(hid_t dataset, Entry& entry) {
#if H5_VERSION_GE(1, 12, 0)
  H5O_info2_t info;
  checked_call(H5Oget_info3(dataset, &info, H5O_INFO_NUM_ATTRS), "count attributes");
#else
  H5O_info_t info;
  checked_call(H5Oget_info2(dataset, &info, H5O_INFO_NUM_ATTRS), "count attributes");
#endif
  if (info.num_attrs == 0 || info.num_attrs > kMaxAttributes) return;
  entry.dtype_name = text_attribute(dataset, attribute::kDtype).value_or("");
  entry.module_dtype = text_attribute(dataset, attribute::kModuleDtype).value_or("");
  entry.logical_shape = integer_attribute(dataset, attribute::kShape);
}

Handle open_attribute(hid_t object, const char* name) {
  if (H5Aexists(object, name) <= 0) return {};
  return Handle(H5Aopen(object, name, H5P_DEFAULT));
}

hssize_t elements_of(hid_t attribute) {
  const Handle space(H5Aget_space(attribute));
  return space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
}

std::optional<std::string> read_free_text(hid_t attribute, hid_t type) {
  char* text = nullptr;
  if (H5Aread(attribute, type, &text) < 0 || text == nullptr) return std::nullopt;
  const size_t length = strnlen(text, kMaxAttributeBytes + 1);
  std::optional<std::string> result;
  if (length <= kMaxAttributeBytes) result.emplace(text, length);
  H5free_memory(text);
  return result;
}

std::optional<std::string> read_fixed_text(hid_t attribute, hid_t type) {
  const size_t size = H5Tget_size(type);
  if (size == 0 || size > kMaxAttributeBytes) return std::nullopt;
  std::string text(size, '\0');
  if (H5Aread(attribute, type, text.data()) < 0) return std::nullopt;
  text.resize(strnlen(text.data(), size));
  return text;
}

}  // namespace

std::optional<std::string> text_attribute(hid_t object, const char* name) {
  const Handle attribute = open_attribute(object, name);
  if (attribute < 0 || elements_of(attribute) != 1) return std::nullopt;
  const Handle type(H5Aget_type(attribute));
  if (type < 0 || H5Tget_class(type) != H5T_STRING) return std::nullopt;
  return H5Tis_variable_str(type) > 0 ? read_free_text(attribute, type) : read_fixed_text(attribute, type);
}

std::optional<Shape> integer_attribute(hid_t object, const char* name) {
  const Handle attribute = open_attribute(object, name);
  const hssize_t count = attribute < 0 ? -1 : elements_of(attribute);
  if (count < 0 || count > static_cast<hssize_t>(kMaxRank)) return std::nullopt;
  const Handle type(H5Aget_type(attribute));
  if (type < 0 || H5Tget_class(type) != H5T_INTEGER) return std::nullopt;
  Shape values(static_cast<size_t>(count));
  if (count > 0 && H5Aread(attribute, H5T_NATIVE_INT64, values.data()) < 0) return std::nullopt;
  return values;
}

Entry describe_dataset(hid_t dataset, bool with_attributes) {
  Entry entry;
  Extent extent = read_extent(dataset);
  if (!extent.problem.empty()) return other(entry, std::move(extent.problem));
  entry.shape = std::move(extent.shape);

  const Handle type = checked(H5Dget_type(dataset), "read a datatype");
  const size_t item_bytes = H5Tget_size(type);
  if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 && entry.shape.empty()) {
    entry.kind = Entry::Kind::kText;
  } else {
    ElementType element = recognise_element_type(type);
    if (!element.refusal.empty()) {
      Entry listed = other(entry, cat("its elements are no plain numbers but ", element.refusal));
      if (is_digest_row(type)) describe_rows(dataset, static_cast<int64_t>(item_bytes), listed);
      return listed;
    }
    entry.kind = Entry::Kind::kTensor;
    entry.dtype = element.dtype;
    entry.big_endian = element.big_endian;
  }

  Layout layout = read_layout(dataset, entry.shape, static_cast<int64_t>(item_bytes));
  if (!layout.problem.empty()) return other(entry, std::move(layout.problem));
  entry.offset = layout.offset;
  entry.stored_bytes = layout.stored_bytes;
  entry.chunk = std::move(layout.chunk);
  if (entry.kind == Entry::Kind::kText) entry.shape = entry.chunk = {static_cast<int64_t>(item_bytes)};

  const int64_t declared =
      numel_of(entry.shape) * (entry.kind == Entry::Kind::kText ? 1 : static_cast<int64_t>(item_bytes));
  if (declared > 0 && (declared - 1) / kMaxExpansion >= entry.stored_bytes)
    return other(entry,
                 cat("it declares ", declared, " bytes, but only ", entry.stored_bytes, " are stored"));
  if (with_attributes) read_marks(dataset, entry);
  return entry;
}

}  // namespace uckpt::hdf5
