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

namespace uckpt {

// The descriptor of a file for as long as one access lasts.
class OutputFolder::Access {
 public:
  explicit Access(const File& file)
      : fd_(file.fd >= 0 ? file.fd : uninterrupted([&] {
          return ::open(file.path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        })),
        transient_(file.fd < 0) {
    if (fd_ < 0) throw system_trouble("cannot open again", file.path);
  }
  ~Access() {
    if (transient_) ::close(fd_);
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
  bool transient_;
};

OutputFolder::OutputFolder(const Claim& claim, bool replace, LeftOver left)
    : staged_(stage(claim.output(), "folder")), replace_(replace), left_(left) {
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
    if (f.fd < 0) continue;
    ::close(f.fd);
    f.fd = -1;
    release_descriptor();
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
  files_.push_back(std::move(file));
  return files_.back().path;
}

void OutputFolder::preallocate(uint32_t file, int64_t size) {
  reserve_blocks(Access(files_[file]).fd(), size, staged_.path);
}

void OutputFolder::write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) {
  write_all(Access(files_[file]).fd(), offset, bytes, staged_.path);
}

void OutputFolder::read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const {
  read_all(Access(files_[file]).fd(), offset, out, staged_.path);
}

void OutputFolder::start_writeback(uint32_t file, int64_t offset, int64_t size) {
  ::sync_file_range(Access(files_[file]).fd(), offset, size, SYNC_FILE_RANGE_WRITE);
}

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
