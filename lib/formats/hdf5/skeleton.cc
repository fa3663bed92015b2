#include "lib/formats/hdf5/skeleton.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"
#include "lib/formats/hdf5/element_type.h"
#include "lib/formats/hdf5/handle.h"

namespace uckpt::hdf5 {
namespace {

// Metadata is allocated in blocks of about what all of it takes (400 bytes a dataset were measured), up to 1
// MiB: far fewer allocations than the default of 2 KiB, and small files stay small.
constexpr size_t kMetadataPerDataset = 512, kSmallestBlock = 2048, kLargestBlock = 1 << 20;
constexpr hsize_t kAlignment = 4096, kAlignFrom = 64 << 10;

std::string path_of(std::string_view group, std::string_view name) {
  return group.empty() ? escape_name(name) : cat(group, "/", escape_name(name));
}

// What lies in the file: the tensor's own shape, or bytes for types that HDF5 does not know.
Shape stored_shape(const Dataset& dataset) {
  const auto numel = checked_product(dataset.shape);
  const auto bytes = numel ? bytes_of(dataset.dtype, *numel) : std::nullopt;
  if (!bytes)
    throw refused("hdf5.sub_byte",
                  cat("its shape ", shape_text(dataset.shape), " of ", name_of(dataset.dtype),
                      " is no whole number of bytes that fits in 64 bits"))
        .in_tensor(path_of(dataset.group, dataset.name));
  const int bits = bits_of(dataset.dtype);
  if (bits % 8 == 0) return dataset.shape;
  Shape shape = dataset.shape;
  const auto row_bits = checked_mul(shape.back(), bits);
  if (!row_bits || *row_bits % 8 != 0) return {*bytes};
  shape.back() = *row_bits / 8;
  return shape;
}

void check_names(const Skeleton& skeleton, const std::vector<std::string>& paths) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(paths.size() + skeleton.texts.size());
  const auto check = [&](std::string_view path) {
    if (path.size() > kMaxPath)
      throw refused("hdf5.name",
                    cat("its name is too long: expected at most ", kMaxPath, " bytes, found ", path.size()))
          .in_tensor(std::string(path));
    if (!seen.insert(path).second)
      throw refused("hdf5.duplicate", "two tensors have this name").in_tensor(std::string(path));
  };
  for (size_t i = 0; i < paths.size(); ++i) {
    check(paths[i]);
    const Shape& shape = skeleton.datasets[i].shape;
    if (shape.size() > kMaxRank)
      throw refused("hdf5.rank", cat("it has ", shape.size(), " dimensions: HDF5 holds at most ", kMaxRank))
          .in_tensor(paths[i]);
  }
  std::vector<std::string> texts;
  for (const TextDataset& text : skeleton.texts) texts.push_back(path_of(text.group, text.name));
  for (const std::string& path : texts) check(path);
}

Handle property_list(hid_t kind) { return checked(H5Pcreate(kind), "make a property list"); }

Handle scalar_space() { return checked(H5Screate(H5S_SCALAR), "make a dataspace"); }

Handle make_space(const Shape& shape) {
  if (shape.empty()) return scalar_space();
  std::vector<hsize_t> dims(shape.begin(), shape.end());
  return checked(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), "make a dataspace");
}

Handle make_text_type(size_t size) {
  Handle type = checked(H5Tcopy(H5T_C_S1), "make a text type");
  checked_call(H5Tset_size(type, size), "make a text type");
  checked_call(H5Tset_cset(type, H5T_CSET_UTF8), "make a text type");
  checked_call(H5Tset_strpad(type, H5T_STR_NULLPAD), "make a text type");
  return type;
}

void put_attribute(hid_t object, const char* name, hid_t type, hid_t space, const void* value) {
  const Handle attribute =
      checked(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), "make an attribute");
  checked_call(H5Awrite(attribute, type, value), "write an attribute");
}

// Makes one file. Identifiers are shared between datasets: types, properties and groups are made once.
class SkeletonFile {
 public:
  SkeletonFile(const std::string& path, size_t datasets)
      : creation_(property_list(H5P_DATASET_CREATE)),
        links_(property_list(H5P_LINK_CREATE)),
        scalar_(scalar_space()),
        free_text_(make_text_type(H5T_VARIABLE)) {
    checked_call(H5Pset_layout(creation_, H5D_CONTIGUOUS), "set a property");
    checked_call(H5Pset_alloc_time(creation_, H5D_ALLOC_TIME_EARLY), "set a property");
    checked_call(H5Pset_fill_time(creation_, H5D_FILL_TIME_NEVER), "set a property");
    checked_call(H5Pset_obj_track_times(creation_, false), "set a property");
    checked_call(H5Pset_char_encoding(links_, H5T_CSET_UTF8), "set a property");
    open(path, datasets);
  }

  // The byte offset of the new dataset's bytes; -1 if it has none.
  int64_t add(const Dataset& dataset) {
    const Handle made = make_dataset(dataset.group, dataset.name, element_type(dataset.dtype),
                                     space_of(stored_shape(dataset)));
    mark(made, dataset);
    return offset_of(made);
  }

  void add(const TextDataset& text) {
    const Handle type = make_text_type(std::max<size_t>(1, text.text.size()));
    Handle made = make_dataset(text.group, text.name, type, scalar_);
    checked_call(H5Dwrite(made, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.text.c_str()), "write a text");
    checked_call(H5Dclose(made.release()), "write a text");  // the bytes are written here, not above
  }

  void link(const Dataset& name, const Dataset& target) {
    checked_call(H5Lcreate_hard(group(target.group), escape_name(target.name).c_str(), group(name.group),
                                escape_name(name.name).c_str(), links_, H5P_DEFAULT),
                 cat("link `", escape(name.name), "`"));
  }

  // One row a dataset: its path in `width` bytes, then the digest.
  int64_t add_digest(size_t rows, int64_t width) {
    const auto row_bytes = static_cast<size_t>(width + kDigestBytes);
    const Handle row = checked(H5Tcreate(H5T_COMPOUND, row_bytes), "make a row type");
    checked_call(H5Tinsert(row, "path", 0, make_text_type(static_cast<size_t>(width))), "make a row type");
    checked_call(H5Tinsert(row, "crc64", static_cast<size_t>(width), H5T_STD_U64LE), "make a row type");
    return offset_of(make_dataset("", place::kDigest, row, make_space({static_cast<int64_t>(rows)})));
  }

  void add_attribute(const std::string& name, const std::string& value) {
    put_text(root(), name.c_str(), value);
  }
  void add_attribute(const std::string& name, int64_t value) {
    put_attribute(root(), name.c_str(), H5T_STD_I64LE, scalar_, &value);
  }

  void close() {
    for (auto& [path, made] : groups_) checked_call(H5Idec_ref(made.release()), "finish the file");
    groups_.clear();
    checked_call(H5Fclose(file_.release()), "finish the file");
  }

 private:
  void open(const std::string& path, size_t datasets) {
    const hsize_t metadata_block = std::clamp(datasets * kMetadataPerDataset, kSmallestBlock, kLargestBlock);
    const Handle access = property_list(H5P_FILE_ACCESS);
    checked_call(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "set a property");
    checked_call(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST), "set a property");
    checked_call(H5Pset_meta_block_size(access, metadata_block), "set a property");
    checked_call(H5Pset_alignment(access, kAlignFrom, kAlignment), "set a property");
    checked_call(H5Pset_file_locking(access, false, true),
                 "set a property");  // fails on some shared file systems
    const Handle creation = property_list(H5P_FILE_CREATE);
    checked_call(H5Pset_obj_track_times(creation, false), "set a property");
    file_ = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), "create the file");
  }

  Handle make_dataset(const std::string& in_group, std::string_view name, hid_t type, hid_t space) {
    const std::string link = escape_name(name);
    Handle made(H5Dcreate2(group(in_group), link.c_str(), type, space, links_, creation_, H5P_DEFAULT));
    if (made < 0) fail(cat("make the dataset `", escape(link), "`"));
    if (link != name) put_name(made, std::string(name));
    return made;
  }

  static int64_t offset_of(hid_t dataset) {
    const haddr_t offset = H5Dget_offset(dataset);
    return offset == HADDR_UNDEF ? -1 : static_cast<int64_t>(offset);
  }

  hid_t root() { return group(""); }

  // Opens or makes a group and those above it.
  hid_t group(const std::string& path) {
    const auto known = groups_.find(path);
    if (known != groups_.end()) return known->second;
    Handle made;
    if (path.empty()) {
      made = checked(H5Gopen2(file_, "/", H5P_DEFAULT), "open the root group");
    } else {
      const size_t slash = path.rfind('/');
      const hid_t parent = group(slash == std::string::npos ? "" : path.substr(0, slash));
      const Handle creation = property_list(H5P_GROUP_CREATE);
      checked_call(H5Pset_obj_track_times(creation, false), "set a property");
      made = checked(H5Gcreate2(parent, path.c_str() + (slash == std::string::npos ? 0 : slash + 1), links_,
                                creation, H5P_DEFAULT),
                     cat("make the group `", escape(path), "`"));
    }
    return groups_.emplace(path, std::move(made)).first->second;
  }

  hid_t element_type(DType dtype) {
    auto known = types_.find(dtype);
    if (known == types_.end()) known = types_.emplace(dtype, make_element_type(dtype)).first;
    return known->second;
  }

  // A model has few shapes; of those that it has, many times each.
  hid_t space_of(const Shape& shape) {
    constexpr size_t kMost = 1024;
    auto known = spaces_.find(shape);
    if (known != spaces_.end()) return known->second;
    if (spaces_.size() == kMost) spaces_.clear();
    return spaces_.emplace(shape, make_space(shape)).first->second;
  }

  void mark(hid_t made, const Dataset& dataset) {
    if (!described_by_hdf5(dataset.dtype))
      put_text(made, attribute::kDtype, std::string(name_of(dataset.dtype)));
    if (bits_of(dataset.dtype) % 8 != 0)
      put_attribute(made, attribute::kShape, H5T_STD_I64LE,
                    make_space({static_cast<int64_t>(dataset.shape.size())}), dataset.shape.data());
    if (dataset.module_dtype)
      put_text(made, attribute::kModuleDtype, std::string(name_of(*dataset.module_dtype)));
  }

  // Text of variable length: what h5py gives back as `str`.
  void put_text(hid_t object, const char* name, const std::string& text) {
    const char* value = text.c_str();
    put_attribute(object, name, free_text_, scalar_, &value);
  }

  // A name that HDF5 text cannot hold is kept as its bytes.
  void put_name(hid_t object, const std::string& name) {
    if (valid_utf8(name) && name.find('\0') == std::string::npos)
      return put_text(object, attribute::kName, name);
    put_attribute(object, attribute::kName, H5T_STD_U8LE, make_space({static_cast<int64_t>(name.size())}),
                  name.data());
  }

  Handle creation_, links_, scalar_, free_text_, file_;
  std::map<std::string, Handle> groups_;
  std::map<DType, Handle> types_;
  std::map<Shape, Handle> spaces_;
};

class OutputDescriptor {
 public:
  explicit OutputDescriptor(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC)) {
    while (fd_ < 0 && errno == EINTR) fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) throw system_trouble("cannot open again", path_);
  }
  ~OutputDescriptor() { ::close(fd_); }
  OutputDescriptor(const OutputDescriptor&) = delete;
  OutputDescriptor& operator=(const OutputDescriptor&) = delete;

  void write_at(int64_t offset, ByteSpan bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw system_trouble("cannot write", path_);
      bytes = bytes.subspan(static_cast<size_t>(n));
      offset += n;
    }
  }
  int64_t size() const {
    struct stat st {};
    if (::fstat(fd_, &st) != 0) throw system_trouble("cannot look at", path_);
    return st.st_size;
  }

 private:
  const std::string& path_;
  int fd_;
};

// The rows of /digest: the paths of all datasets with bytes of their own, and room for the longest.
struct DigestRows {
  std::vector<std::string_view> paths;
  int64_t width = 8;
};

DigestRows digest_rows(const Skeleton& skeleton, const std::vector<std::string>& paths) {
  DigestRows rows;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (skeleton.datasets[i].link_to) continue;
    rows.paths.push_back(paths[i]);
    rows.width = std::max(rows.width, round_up(static_cast<int64_t>(paths[i].size()), 8));
  }
  return rows;
}

// Past the library: as bytes in blocks, however long the names are.
void write_digest_rows(OutputDescriptor& file, int64_t offset, const DigestRows& rows) {
  constexpr size_t kBlock = 1 << 20;
  const auto row_bytes = static_cast<size_t>(rows.width + kDigestBytes);
  Bytes block;
  for (size_t i = 0; i < rows.paths.size(); ++i) {
    block.insert(block.end(), rows.paths[i].begin(), rows.paths[i].end());
    block.resize(block.size() + row_bytes - rows.paths[i].size());
    if (block.size() < kBlock && i + 1 < rows.paths.size()) continue;
    file.write_at(offset, block);
    offset += static_cast<int64_t>(block.size());
    block.clear();
  }
}

// Everything that the library has to do; the file is complete but for tensor bytes and digest rows.
int64_t lay_out(const std::string& path, const Skeleton& skeleton, const DigestRows& rows,
                Placement& placement) {
  const std::lock_guard lock(library_mutex());
  silence_library();
  SkeletonFile file(path, skeleton.datasets.size() + skeleton.texts.size());
  for (const Dataset& dataset : skeleton.datasets) {
    if (dataset.link_to) file.link(dataset, skeleton.datasets.at(*dataset.link_to));
    placement.offsets.push_back(dataset.link_to ? -1 : file.add(dataset));
  }
  for (const TextDataset& text : skeleton.texts) file.add(text);
  for (const auto& [name, value] : skeleton.text_attributes) file.add_attribute(name, value);
  for (const auto& [name, value] : skeleton.int_attributes) file.add_attribute(name, value);
  const int64_t digest_at = file.add_digest(rows.paths.size(), rows.width);
  file.close();
  return digest_at;
}

}  // namespace

Placement create_skeleton(const std::string& path, const Skeleton& skeleton) try {
  std::vector<std::string> paths;
  paths.reserve(skeleton.datasets.size());
  for (const Dataset& dataset : skeleton.datasets) paths.push_back(path_of(dataset.group, dataset.name));
  check_names(skeleton, paths);
  const DigestRows rows = digest_rows(skeleton, paths);
  Placement placement;
  placement.offsets.reserve(skeleton.datasets.size());
  const int64_t digest_at = lay_out(path, skeleton, rows, placement);

  int64_t next_row = digest_at + rows.width;
  for (const Dataset& dataset : skeleton.datasets) {
    placement.digest_offsets.push_back(dataset.link_to ? -1 : next_row);
    if (!dataset.link_to) next_row += rows.width + kDigestBytes;
  }
  OutputDescriptor file(path);
  write_digest_rows(file, digest_at, rows);
  placement.file_size = file.size();
  return placement;
} catch (Error& error) {
  throw error.in_file(path);
}

}  // namespace uckpt::hdf5
