#include "lib/io/staging.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "lib/base/checked.h"
#include "lib/base/text.h"

namespace uckpt {

StagedPath stage(std::string path, std::string_view what) {
  while (what == "folder" && path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  const std::string leaf = slash == std::string::npos ? path : path.substr(slash + 1);
  if (leaf.empty() || leaf == "." || leaf == "..")
    throw trouble("output.name", cat("expected the name of a ", what, " to write")).in_file(path);
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  return {path, folder, cat(folder, "/.", leaf, ".uckpt-tmp"), cat(folder, "/.", leaf, ".uckpt-journal")};
}

bool path_exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

bool same_file(int fd, const std::string& path) {
  struct stat a {
  }, b{};
  return ::fstat(fd, &a) == 0 && ::lstat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
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

void check_free_or_replaceable(const std::string& path, bool replace) {
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
    throw trouble("output.kind_of_file", "the output exists already, and is neither a file nor a folder")
        .in_file(path)
        .hint("give another name");
  if (!replace && path_exists(path)) throw exists_error(path);
}

void reserve_blocks(int fd, int64_t size, const std::string& path) {
  if (size == 0) return;
  if (uninterrupted([&] { return ::fallocate(fd, 0, 0, size); }) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG || errno == EIO) throw write_error(path);
  if (uninterrupted([&] { return ::ftruncate(fd, size); }) != 0) throw write_error(path);
}

void write_all(int fd, int64_t offset, std::span<const uint8_t> bytes, const std::string& path) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n =
        ::pwrite(fd, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw write_error(path);
    done += static_cast<size_t>(n);
  }
}

void read_all(int fd, int64_t offset, std::span<uint8_t> out, const std::string& path) {
  for (size_t done = 0; done < out.size();) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw system_trouble("cannot read back the output", path);
    done += static_cast<size_t>(n);
  }
}

void sync_data(int fd, const std::string& path) {
  if (uninterrupted([&] { return ::fdatasync(fd); }) != 0) throw write_error(path);
}

void remove_tree(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

void check_free_space(const StagedPath& staged, int64_t bytes) {
  struct statvfs st {};
  if (::statvfs(staged.folder.c_str(), &st) != 0 || st.f_blocks == 0) return;  // it does not tell
  const int64_t free =
      checked_mul(static_cast<int64_t>(st.f_bavail), static_cast<int64_t>(st.f_frsize)).value_or(INT64_MAX);
  if (free >= bytes) return;
  throw trouble("io.no_space",
                cat("no space left for the output: expected ", human_bytes(static_cast<uint64_t>(bytes)),
                    " free, found ", human_bytes(static_cast<uint64_t>(free)), "; nothing was changed"))
      .in_file(staged.path);
}

void sync_folder(const std::string& folder) {
  const int fd = uninterrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0 && (errno == EMFILE || errno == ENFILE)) return ::sync();  // dear, but needs no descriptor
  if (fd < 0) throw write_error(folder);
  const int result = uninterrupted([&] { return ::fsync(fd); }), failure = errno;
  ::close(fd);
  errno = failure;
  if (result != 0 && errno != EINVAL && errno != ENOTSUP && errno != EBADF) throw write_error(folder);
}

void sync_new_name(const StagedPath& staged) {
  try {
    sync_folder(staged.folder);
  } catch (const Error& error) {
    throw trouble("io.sync_name",
                  cat("the output is complete, but a power cut may still lose its name: ", error.message()))
        .in_file(staged.path);
  }
}

bool rename_to_free_name(const StagedPath& staged) {
  const auto rename = [&] {
    return ::renameat2(AT_FDCWD, staged.temporary.c_str(), AT_FDCWD, staged.path.c_str(), RENAME_NOREPLACE);
  };
  if (uninterrupted(rename) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS) return false;
  if (errno == EEXIST) throw exists_error(staged.path);
  throw system_trouble("cannot rename the finished output", staged.path);
}

}  // namespace uckpt
