#include "lib/io/input.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/descriptors.h"
#include "lib/io/mapping.h"

namespace uckpt {

namespace {

Error short_read(const std::string& name, int64_t offset, size_t wanted, int64_t size) {
  Error e = refused("io.short_read", cat("the file ends too early: expected ", wanted, " bytes at byte ",
                                         offset, ", found a file of ", size, " bytes"));
  e.in_file(name);
  return e;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int open_read_only(const std::string& path, int flags = 0) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on regular files.
  for (;;) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    if (fd >= 0 || errno != EINTR) return fd;
  }
}

}  // namespace

Bytes ByteSource::read_range(int64_t offset, int64_t length) const {
  if (!range_inside(offset, length, size())) {
    throw short_read(name(), offset, static_cast<size_t>(std::max<int64_t>(0, length)), size());
  }
  Bytes out(static_cast<size_t>(length));
  read_at(offset, out);
  return out;
}

void ByteSource::read_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const {
  const auto step = static_cast<size_t>(length);
  for (size_t at = 0; at < out.size(); at += step, offset += stride) read_at(offset, out.subspan(at, step));
}

void MemorySource::read_at(int64_t offset, std::span<uint8_t> out) const {
  if (!range_inside(offset, static_cast<int64_t>(out.size()), size())) {
    throw short_read(name_, offset, out.size(), size());
  }
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
}

struct InputFile::Impl {
  dev_t device;
  ino_t inode;
  timespec changed;
  std::atomic<int> fd{-1};  // -1: not kept open
  std::once_flag mapping_tried;
  std::unique_ptr<Mapping> mapping;
};

// A descriptor of the file as it was opened first.
class InputFile::Access {
 public:
  explicit Access(const InputFile& file) : fd_(file.impl_->fd) {
    if (fd_ >= 0) return;
    Descriptor opened(open_read_only(file.path_));
    if (opened.get() < 0) throw system_trouble("cannot open again", file.path_);
    if (!file.is_still(opened.get())) {
      throw refused("io.changed", "the file was changed while it was read").in_file(file.path_);
    }
    fd_ = opened.release();
    is_transient_ = true;
  }
  ~Access() {
    if (is_transient_) ::close(fd_);
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
  bool is_transient_ = false;
};

// The file as it was opened first?
bool InputFile::is_still(int fd) const {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && st.st_dev == impl_->device && st.st_ino == impl_->inode &&
         st.st_size == size_ && st.st_mtim.tv_sec == impl_->changed.tv_sec &&
         st.st_mtim.tv_nsec == impl_->changed.tv_nsec;
}

int InputFile::open_direct() const {
  Descriptor opened(open_read_only(path_, O_DIRECT));
  return opened.get() >= 0 && is_still(opened.get()) ? opened.release() : -1;
}

InputFile::InputFile(std::string path, int64_t size, std::unique_ptr<Impl> impl)
    : path_(std::move(path)), size_(size), impl_(std::move(impl)) {}

InputFile::~InputFile() {
  if (impl_->fd >= 0) {
    ::close(impl_->fd);
    release_descriptor();
  }
}

std::shared_ptr<InputFile> InputFile::open(std::string path) {
  Descriptor fd(open_read_only(path));
  if (fd.get() < 0) throw system_trouble("cannot open", path);
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) throw system_trouble("cannot look at", path);
  if (!S_ISREG(st.st_mode)) {
    throw trouble("io.not_regular", "expected a regular file, found something else").in_file(path);
  }
  auto impl = std::make_unique<Impl>();
  impl->device = st.st_dev;
  impl->inode = st.st_ino;
  impl->changed = st.st_mtim;
  if (reserve_descriptor()) impl->fd = fd.release();
  return std::shared_ptr<InputFile>(new InputFile(std::move(path), st.st_size, std::move(impl)));
}

void InputFile::read_at(int64_t offset, std::span<uint8_t> out) const {
  if (!range_inside(offset, static_cast<int64_t>(out.size()), size_)) {
    throw short_read(path_, offset, out.size(), size_);
  }
  const Access access(*this);
  const int fd = access.fd();
  for (size_t done = 0; done < out.size();) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_trouble("cannot read", path_);
    if (n == 0) throw short_read(path_, offset, out.size(), offset + static_cast<int64_t>(done));
    done += static_cast<size_t>(n);
  }
}

void InputFile::read_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const {
  constexpr int64_t kShort = 4096;  // from here on a system call costs less than the copy
  if (length >= kShort || static_cast<int64_t>(out.size()) == length)
    return ByteSource::read_runs(offset, stride, length, out);
  const int64_t last = offset + (static_cast<int64_t>(out.size()) / length - 1) * stride;
  if (!range_inside(offset, length, size_) || !range_inside(last, length, size_))
    throw short_read(path_, last, static_cast<size_t>(length), size_);
  std::call_once(impl_->mapping_tried, [&] { impl_->mapping = Mapping::of(Access(*this).fd(), size_); });
  // What the mapping cannot read the system call has the error for, or it can.
  if (!impl_->mapping || !impl_->mapping->copy_runs(offset, stride, length, out))
    ByteSource::read_runs(offset, stride, length, out);
}

namespace {

std::string real_path(const std::string& path) {
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) throw system_trouble("cannot open", path);
  std::string out = resolved;
  std::free(resolved);
  return out;
}

void check_parts(std::string_view name, const std::string& folder) {
  const auto escapes = [&](std::string_view why) {
    return refused("name.escapes", cat("the name `", escape(name), "` leads outside the folder: ", why))
        .in_file(folder);
  };
  if (name.empty()) throw escapes("it is empty");
  if (name.find('\0') != std::string_view::npos) throw escapes("it holds a NUL");
  if (name.front() == '/') throw escapes("it is absolute");
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (part == ".." || part == "." || (part.empty() && end < name.size()))
      throw escapes("a part of it is empty, `.` or `..`");
    start = end + 1;
  }
}

bool stat_is(const std::string& path, mode_t type) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && (st.st_mode & S_IFMT) == type;
}

}  // namespace

InputFolder::InputFolder(std::string path) : path_(std::move(path)), real_(real_path(path_)) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
}

std::string InputFolder::join(std::string_view name) const {
  if (name.empty()) return path_;
  return path_ == "/" ? cat("/", name) : cat(path_, "/", name);
}

std::string InputFolder::resolve(std::string_view name) const {
  check_parts(name, path_);
  const std::string real = real_path(join(name));
  const std::string prefix = real_ == "/" ? real_ : real_ + "/";
  if (real != real_ && real.compare(0, prefix.size(), prefix) != 0) {
    throw refused("name.escapes", cat("`", escape(name), "` is a link that leads outside the folder"))
        .in_file(path_);
  }
  return real;
}

std::vector<std::string> InputFolder::list(std::string_view sub) const {
  const std::string path = sub.empty() ? real_ : resolve(sub);
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) throw system_trouble("cannot list", join(sub));
  std::vector<std::string> names;
  // The end and a failure look alike but for errno: a folder half listed is a checkpoint half read.
  for (dirent* entry; errno = 0, (entry = ::readdir(dir)) != nullptr;) {
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    const bool folder =
        entry->d_type == DT_DIR ||
        ((entry->d_type == DT_UNKNOWN || entry->d_type == DT_LNK) && stat_is(path + "/" + name, S_IFDIR));
    names.push_back(folder ? name + "/" : std::move(name));
  }
  const int failure = errno;
  ::closedir(dir);
  if (failure != 0) {
    errno = failure;
    throw system_trouble("cannot list", join(sub));
  }
  std::sort(names.begin(), names.end(), natural_less);
  return names;
}

bool InputFolder::has_file(std::string_view name) const {
  check_parts(name, path_);
  return stat_is(join(name), S_IFREG);
}

bool InputFolder::has_folder(std::string_view name) const {
  check_parts(name, path_);
  return stat_is(join(name), S_IFDIR);
}

std::shared_ptr<InputFile> InputFolder::open(std::string_view name) const {
  resolve(name);
  return InputFile::open(join(name));
}

bool is_folder(const std::string& path) { return stat_is(path, S_IFDIR); }

void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace uckpt
