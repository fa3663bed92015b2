#include "lib/formats/hdf5/decoded_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/explorer.h"
#include "lib/formats/hdf5/sandbox.h"

namespace uckpt::hdf5 {
namespace {

constexpr int64_t kBlockBytes = 1 << 20;
constexpr int64_t kBatchBytes = 64 << 20;
constexpr size_t kBatchItems = 1024;
constexpr int64_t kItemAlignment = 64;
constexpr int64_t kSlowestDecode = 5 << 20;  // bytes a second; slower is a hang

// The boxes of at most `block` that tile `shape`, in row-major order. Without dimensions there is one.
class Blocks {
 public:
  Blocks(const Shape& shape, const Shape& block)
      : shape_(shape), block_(block), start_(shape.size(), 0), done_(numel_of(shape) == 0) {}
  bool done() const { return done_; }
  const Shape& start() const { return start_; }
  Shape extent() const {
    Shape extent(shape_.size());
    for (size_t d = 0; d < extent.size(); ++d) extent[d] = std::min(block_[d], shape_[d] - start_[d]);
    return extent;
  }
  void next() {
    for (size_t d = shape_.size(); d-- > 0;) {
      if (block_[d] < shape_[d] - start_[d]) {
        start_[d] += block_[d];
        return;
      }
      start_[d] = 0;
    }
    done_ = true;
  }

 private:
  const Shape &shape_, &block_;
  Shape start_;
  bool done_;
};

// Calls `run(offset, bytes)` for each unbroken stretch of a box inside a row-major array, in row-major order.
template <class Run>
void for_each_run(const Shape& shape, const Shape& start, const Shape& extent, int64_t item_bytes, Run run) {
  size_t outer = shape.size();  // dimensions before the stretch
  int64_t bytes = item_bytes;
  while (outer > 0 && (outer == shape.size() || extent[outer] == shape[outer])) bytes *= extent[--outer];
  Shape at(start.begin(), start.begin() + static_cast<std::ptrdiff_t>(outer));
  for (;;) {
    int64_t offset = 0;
    for (size_t d = 0; d < shape.size(); ++d) offset = offset * shape[d] + (d < outer ? at[d] : start[d]);
    run(offset * item_bytes, bytes);
    size_t d = outer;
    while (d > 0 && ++at[d - 1] == start[d - 1] + extent[d - 1]) {
      at[d - 1] = start[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

std::vector<hsize_t> dims_of(const Shape& shape) { return {shape.begin(), shape.end()}; }

void check_unchanged(hid_t dataset, hid_t type, const Shape& shape, int64_t item_bytes) {
  const Handle space = checked(H5Dget_space(dataset), "read a dataspace");
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> dims(rank > 0 ? static_cast<size_t>(rank) : 0);
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  // A text is one element of many bytes here, many bytes outside.
  const bool is_text = H5Tget_class(type) == H5T_STRING && rank == 0 && item_bytes == 1 && shape.size() == 1;
  const bool same = is_text ? static_cast<int64_t>(H5Tget_size(type)) == shape[0]
                            : dims == dims_of(shape) && static_cast<int64_t>(H5Tget_size(type)) == item_bytes;
  if (!same) throw refused("io.changed", "the file was changed while it was read");
}

// The child: elements in the file's own type, so that nothing is converted.
void tell_dataset(Outbox& out, hid_t file, const std::string& name, const Shape& shape, const Shape& block,
                  int64_t item_bytes) {
  const Handle dataset = checked(H5Dopen2(file, name.c_str(), H5P_DEFAULT), "open the dataset");
  const Handle type = checked(H5Dget_type(dataset), "read a datatype");
  check_unchanged(dataset, type, shape, item_bytes);
  const Handle space = checked(H5Dget_space(dataset), "read a dataspace");
  const bool has_rank = H5Sget_simple_extent_ndims(space) > 0;
  Bytes bytes;
  for (Blocks blocks(shape, block); !blocks.done(); blocks.next()) {
    const auto start = dims_of(blocks.start()), extent = dims_of(blocks.extent());
    bytes.resize(static_cast<size_t>(numel_of(blocks.extent()) * item_bytes));
    Handle memory;
    if (has_rank) {
      memory = checked(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                       "make a dataspace");
      checked_call(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr),
                   "select a block");
    }
    checked_call(H5Dread(dataset, type, has_rank ? memory : H5S_ALL, has_rank ? space : H5S_ALL, H5P_DEFAULT,
                         bytes.data()),
                 "decode the dataset");
    out.put(bytes);
  }
}

int make_scratch_file() {
  const char* folder = std::getenv("TMPDIR");
  const std::string path = folder && *folder ? folder : "/tmp";
  const int fd = ::open(path.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string name = path + "/uckpt-XXXXXX";
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named < 0) throw system_trouble("cannot make a scratch file in", path);
  ::unlink(name.c_str());
  return named;
}

}  // namespace

Shape block_shape(const Shape& shape, const Shape& chunk, int64_t item_bytes) {
  Shape block = chunk;
  for (size_t d = 0; d < block.size(); ++d) block[d] = std::min(block[d], std::max<int64_t>(1, shape[d]));
  int64_t bytes = numel_of(block) * item_bytes;
  for (size_t d = block.size(); d-- > 0 && bytes > 0 && bytes < kBlockBytes;) {
    const int64_t wanted = std::min(kBlockBytes / bytes, ceil_div(shape[d], block[d]));
    block[d] *= std::max<int64_t>(1, wanted);
    bytes *= std::max<int64_t>(1, wanted);
    if (block[d] < shape[d]) break;
  }
  return block;
}

DecodedFile::DecodedFile(std::string path) : path_(std::move(path)) {}

DecodedFile::~DecodedFile() {
  if (scratch_ >= 0) ::close(scratch_);
}

int64_t DecodedFile::add(std::string dataset, Shape shape, Shape chunk, int64_t item_bytes) {
  const auto numel = checked_product(shape);
  const auto bytes = numel ? checked_mul(*numel, item_bytes) : std::nullopt;
  const auto end = bytes ? checked_add(size_, *bytes) : std::nullopt;
  const bool fits = chunk.size() == shape.size() &&
                    (numel == 0 || std::ranges::all_of(chunk, [](int64_t size) { return size > 0; }));
  if (!end || *end > INT64_MAX - kItemAlignment || !fits)
    throw refused("hdf5.damaged", "its chunks do not fit its shape, or it is larger than any file")
        .in_file(path_)
        .in_tensor(dataset);
  Shape block = block_shape(shape, chunk, item_bytes);
  const int64_t offset = size_;
  items_.push_back({std::move(dataset), std::move(shape), std::move(block), item_bytes, offset, *bytes});
  size_ = round_up(*end, kItemAlignment);

  if (batches_.empty() || batches_.back()->bytes + *bytes > kBatchBytes ||
      batches_.back()->count >= kBatchItems) {
    batches_.push_back(std::make_unique<Batch>());
    batches_.back()->first = items_.size() - 1;
    batches_.back()->offset = offset;
  }
  ++batches_.back()->count;
  batches_.back()->bytes = size_ - batches_.back()->offset;
  return offset;
}

void DecodedFile::read_at(int64_t offset, std::span<uint8_t> out) const {
  if (!range_inside(offset, static_cast<int64_t>(out.size()), size_))
    throw refused("io.short_read", cat("no bytes at ", offset, " of the decoded datasets")).in_file(path_);
  if (out.empty()) return;
  auto batch = std::ranges::upper_bound(batches_, offset, {}, [](const auto& b) { return b->offset; });
  const int64_t end = offset + static_cast<int64_t>(out.size());
  for (--batch; batch != batches_.end() && (*batch)->offset < end; ++batch) ensure(**batch);

  const int fd = scratch();
  while (!out.empty()) {
    const ssize_t n = ::pread(fd, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_trouble("cannot read a scratch file of", path_);
    if (n == 0) {  // the gap behind the last dataset
      std::ranges::fill(out, uint8_t{0});
      return;
    }
    offset += n;
    out = out.subspan(static_cast<size_t>(n));
  }
}

void DecodedFile::ensure(Batch& batch) const {
  const std::lock_guard lock(batch.mutex);
  if (!batch.done) decode(batch);
  batch.done = true;
}

void DecodedFile::decode(const Batch& batch) const {
  const std::span<const Item> items(items_.data() + batch.first, batch.count);
  SandboxLimits limits;
  const auto patience = static_cast<int>(std::min<int64_t>(batch.bytes / kSlowestDecode, 1 << 24));
  limits.cpu_seconds += patience;
  limits.wall_seconds += 4 * patience;  // decoders of many batches share the processors
  Sandbox child(
      [&](Outbox& out) {
        const Handle file = open_for_reading(path_);
        out.close_the_door();
        for (const Item& item : items)
          tell_dataset(out, file, item.dataset, item.shape, item.block, item.item_bytes);
      },
      limits);

  Bytes buffer(kBlockBytes);
  for (const Item& item : items) try {
      for (Blocks blocks(item.shape, item.block); !blocks.done(); blocks.next()) {
        for_each_run(
            item.shape, blocks.start(), blocks.extent(), item.item_bytes, [&](int64_t at, int64_t bytes) {
              while (bytes > 0) {
                const std::span part(buffer.data(), static_cast<size_t>(std::min(bytes, kBlockBytes)));
                child.get(part);
                write_at(item.offset + at, part);
                at += static_cast<int64_t>(part.size());
                bytes -= static_cast<int64_t>(part.size());
              }
            });
      }
    } catch (Error& error) {
      throw error.in_file(path_).in_tensor(item.dataset);
    }
  child.expect_end();
}

void DecodedFile::write_at(int64_t offset, ByteSpan bytes) const {
  const int fd = scratch();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_trouble("cannot write a scratch file (TMPDIR says where) for", path_);
    offset += n;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

int DecodedFile::scratch() const {
  std::call_once(scratch_made_, [&] { scratch_ = make_scratch_file(); });
  return scratch_;
}

}  // namespace uckpt::hdf5
