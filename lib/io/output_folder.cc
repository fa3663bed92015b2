#include "lib/io/output_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/descriptors.h"
#include "lib/io/direct.h"

namespace uckpt {

// A descriptor of a file for as long as one access lasts.
class OutputFolder::Access {
 public:
  enum class Kind : uint8_t { kCached, kDirect };
  explicit Access(const File& file, Kind kind = Kind::kCached) {
    const int kept = kind == Kind::kDirect ? file.direct_fd : file.fd;
    transient_ = kept < 0;
    fd_ = !transient_ ? kept : kind == Kind::kDirect ? uckpt::open_direct(file.path) : open_again(file.path);
  }
  ~Access() {
    if (transient_ && fd_ >= 0) ::close(fd_);
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  int fd() const { return fd_; }  // -1 of a file that cannot be written directly

 private:
  static int open_again(const std::string& path) {
    const int fd = uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC); });
    if (fd < 0) throw system_trouble("cannot open again", path);
    return fd;
  }
  int fd_;
  bool transient_;
};

OutputFolder::OutputFolder(const Claim& claim, bool replace, LeftOver left, bool direct)
    : staged_(stage(claim.output(), "folder")), replace_(replace), left_(left), direct_(direct) {
  check_free_or_replaceable(staged_.path, replace_);
  if (left == LeftOver::kContinued) return;
  remove_tree(staged_.temporary);
  if (uninterrupted([&] { return ::mkdir(staged_.temporary.c_str(), 0777); }) != 0)
    throw system_trouble("cannot create the output", staged_.path);
}

OutputFolder::~OutputFolder() {
  close_files();
  if (!committed_ && !kept_) remove_made();
}

// One by one, which needs no descriptors: they may be what was lacking.
void OutputFolder::remove_made() {
  for (const File& f : files_) ::unlink(f.path.c_str());
  for (auto folder = folders_.rbegin(); folder != folders_.rend(); ++folder)  // those inside come last
    ::rmdir(cat(staged_.temporary, "/", *folder).c_str());
  if (::rmdir(staged_.temporary.c_str()) != 0) remove_tree(staged_.temporary);
}

void OutputFolder::close_files() {
  for (File& f : files_) {
    for (int* fd : {&f.fd, &f.direct_fd}) {
      if (*fd < 0) continue;
      ::close(*fd);
      *fd = -1;
      release_descriptor();
    }
  }
}

void OutputFolder::make_folders(std::string_view name) {
  for (size_t slash = name.find('/'); slash != std::string_view::npos; slash = name.find('/', slash + 1)) {
    const std::string_view folder = name.substr(0, slash);
    if (folders_.contains(folder)) continue;
    const std::string path = cat(staged_.temporary, "/", folder);
    const bool may_exist = left_ == LeftOver::kContinued;
    if (uninterrupted([&] { return ::mkdir(path.c_str(), 0777); }) != 0 && !(may_exist && errno == EEXIST))
      throw system_trouble("cannot create the output", path);
    folders_.emplace(folder);
  }
}

std::string OutputFolder::add(std::string_view name) {
  make_folders(name);
  File file{cat(staged_.temporary, "/", name)};
  const int made = left_ == LeftOver::kContinued ? 0 : O_CREAT | O_EXCL;
  const int fd =
      uninterrupted([&] { return ::open(file.path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | made, 0666); });
  if (fd < 0) throw system_trouble("cannot create the output", cat(staged_.path, "/", name));
  if (reserve_descriptor()) {
    file.fd = fd;
  } else {
    ::close(fd);
  }
  if (direct_ && reserve_descriptor()) {
    file.direct_fd = uckpt::open_direct(file.path);
    if (file.direct_fd < 0) release_descriptor();
  }
  files_.push_back(std::move(file));
  return files_.back().path;
}

void OutputFolder::preallocate(uint32_t file, int64_t size) {
  reserve_blocks(Access(files_[file]).fd(), size, staged_.path);
}

void OutputFolder::write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) {
  const Access cached(files_[file]);
  if (!direct_) return write_all(cached.fd(), offset, bytes, staged_.path);
  write_direct(Access(files_[file], Access::Kind::kDirect).fd(), cached.fd(), offset, bytes, staged_.path);
}

void OutputFolder::read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const {
  read_all(Access(files_[file]).fd(), offset, out, staged_.path);
}

void OutputFolder::start_writeback(uint32_t file, int64_t offset, int64_t size) {
  ::sync_file_range(Access(files_[file]).fd(), offset, size, SYNC_FILE_RANGE_WRITE);
}

bool OutputFolder::is_direct() const {
  return direct_ && !files_.empty() && Access(files_.front(), Access::Kind::kDirect).fd() >= 0;
}

int OutputFolder::open_direct(uint32_t file) const { return uckpt::open_direct(files_[file].path); }

void OutputFolder::sync() const {
  for (const File& f : files_) sync_data(Access(f).fd(), staged_.path);
  for (const std::string& folder : folders_) sync_folder(cat(staged_.temporary, "/", folder));
  sync_folder(staged_.temporary);
}

// Where the path holds something that may be replaced, the two change names in one step, and the old one is
// removed under the temporary's.
void OutputFolder::take_name() {
  const char *from = staged_.temporary.c_str(), *to = staged_.path.c_str();
  if (replace_ && path_exists(staged_.path)) {
    if (uninterrupted([&] { return ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE); }) == 0)
      return remove_tree(staged_.temporary);
    if (errno != EINVAL && errno != ENOSYS)
      throw system_trouble("cannot rename the finished output", staged_.path);
    throw trouble("output.exchange", "this file system cannot replace a folder in one step")
        .in_file(staged_.path)
        .hint("remove the old output, or give the new one another name");
  }
  if (rename_to_free_name(staged_)) return;
  // A plain rename replaces nothing but an empty folder.
  if (::rename(from, to) == 0) return;
  if (errno == ENOTEMPTY || errno == EEXIST) throw exists_error(staged_.path);
  throw system_trouble("cannot rename the finished output", staged_.path);
}

void OutputFolder::commit(bool sync) {
  if (sync) this->sync();
  take_name();
  committed_ = true;
  if (sync) sync_new_name(staged_);
}

}  // namespace uckpt
