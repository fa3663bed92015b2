#include "lib/io/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {

namespace {

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

Error exists_error(const std::string& path) {
  Error e = trouble("output.exists", "the output exists already");
  e.in_file(path).hint("-f replaces it");
  return e;
}

Error write_error(const std::string& path) {
  if (errno == ENOSPC || errno == EDQUOT) {
    return trouble("io.no_space", "no space left for the output; nothing was changed").in_file(path);
  }
  return system_trouble("cannot write the output", path);
}

// An open-file-description lock: it goes with this descriptor alone, whatever other code does to the file
// (the HDF5 library takes locks of another kind), and with the process however that ends.
bool lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

bool same_file(int fd, const std::string& path) {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) == 0 && ::lstat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

}  // namespace

OutputFile::OutputFile(std::string path, bool replace) : path_(std::move(path)), replace_(replace) {
  const size_t slash = path_.rfind('/');
  folder_ = slash == std::string::npos ? "." : slash == 0 ? "/" : path_.substr(0, slash);
  const std::string leaf = slash == std::string::npos ? path_ : path_.substr(slash + 1);
  if (leaf.empty() || leaf == "." || leaf == "..")
    throw trouble("output.name", "expected the name of a file to write").in_file(path_);
  temporary_ = cat(folder_, "/.", leaf, ".uckpt-tmp");
  open_locked(replace);
}

void OutputFile::open_locked(bool replace) {
  struct stat st {};
  if (::stat(path_.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
    throw trouble("output.folder", "expected the name of a file to write, found a folder").in_file(path_);
  }
  if (!replace && exists(path_)) throw exists_error(path_);
  for (int attempt = 0; attempt < 16; ++attempt) {
    fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd_ < 0) throw system_trouble("cannot create the output", path_);
    if (!lock(fd_)) {
      ::close(fd_);
      fd_ = -1;
      throw trouble("output.locked", "another uckpt is writing this output").in_file(path_);
    }
    // Between open and lock another process may have renamed or removed the file: then start again.
    if (same_file(fd_, temporary_)) {
      if (::ftruncate(fd_, 0) != 0) throw system_trouble("cannot create the output", path_);
      return;
    }
    ::close(fd_);
    fd_ = -1;
  }
  throw trouble("output.locked", "other processes keep writing this output").in_file(path_);
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  if (!committed_ && same_file(fd_, temporary_)) ::unlink(temporary_.c_str());
  ::close(fd_);
}

void OutputFile::preallocate(int64_t size) {
  if (size == 0) return;
  if (::fallocate(fd_, 0, 0, size) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) throw write_error(path_);
  if (::ftruncate(fd_, size) != 0) throw write_error(path_);
}

void OutputFile::write_at(int64_t offset, std::span<const uint8_t> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw write_error(path_);
    done += static_cast<size_t>(n);
  }
}

void OutputFile::read_at(int64_t offset, std::span<uint8_t> out) const {
  for (size_t done = 0; done < out.size();) {
    const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw system_trouble("cannot read back the output", path_);
    done += static_cast<size_t>(n);
  }
}

void OutputFile::start_writeback(int64_t offset, int64_t size) {
  ::sync_file_range(fd_, offset, size, SYNC_FILE_RANGE_WRITE);
}

void OutputFile::commit(bool sync) {
  if (sync && ::fdatasync(fd_) != 0) throw write_error(path_);
  const unsigned flags = replace_ ? 0 : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags) != 0) {
    // Some file systems know no RENAME_NOREPLACE: a hard link fails likewise if the name is taken.
    const bool unsupported = errno == EINVAL || errno == ENOSYS;
    if (!unsupported && errno == EEXIST) throw exists_error(path_);
    if (!unsupported) throw system_trouble("cannot rename the finished output", path_);
    if (::link(temporary_.c_str(), path_.c_str()) != 0) {
      if (errno == EEXIST) throw exists_error(path_);
      throw system_trouble("cannot rename the finished output", path_);
    }
    ::unlink(temporary_.c_str());
  }
  committed_ = true;
  if (sync) {
    const int folder = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
      ::fsync(folder);
      ::close(folder);
    }
  }
}

}  // namespace uckpt
