#include "lib/io/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/output_folder.h"
#include "lib/io/staging.h"

namespace uckpt {

namespace {

// An open-file-description lock: it goes with this descriptor alone, whatever other code does to the file
// (the HDF5 library takes locks of another kind), and with the process however that ends.
bool lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

class OneFile final : public Output {
 public:
  OneFile(std::string path, bool replace) : file_(std::move(path), replace) {}
  const std::string& path() const override { return file_.path(); }
  std::string add(std::string_view) override { return file_.temporary(); }
  void preallocate(uint32_t, int64_t size) override { file_.preallocate(size); }
  void write_at(uint32_t, int64_t offset, std::span<const uint8_t> bytes) override {
    file_.write_at(offset, bytes);
  }
  void read_at(uint32_t, int64_t offset, std::span<uint8_t> out) const override {
    file_.read_at(offset, out);
  }
  void start_writeback(uint32_t, int64_t offset, int64_t size) override {
    file_.start_writeback(offset, size);
  }
  void commit(bool sync) override { file_.commit(sync); }

 private:
  OutputFile file_;
};

}  // namespace

OutputFile::OutputFile(std::string path, bool replace) : replace_(replace) {
  StagedPath staged = stage(std::move(path), "file");
  path_ = std::move(staged.path);
  folder_ = std::move(staged.folder);
  temporary_ = std::move(staged.temporary);
  open_locked();
}

void OutputFile::open_locked() {
  struct stat st {};
  if (::stat(path_.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
    throw trouble("output.folder", "expected the name of a file to write, found a folder").in_file(path_);
  }
  if (!replace_ && path_exists(path_)) throw exists_error(path_);
  for (int attempt = 0; attempt < 16; ++attempt) {
    fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd_ < 0) throw system_trouble("cannot create the output", path_);
    if (!lock(fd_)) {
      ::close(fd_);
      fd_ = -1;
      throw locked_error(path_);
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

void OutputFile::preallocate(int64_t size) { reserve_blocks(fd_, size, path_); }

void OutputFile::write_at(int64_t offset, std::span<const uint8_t> bytes) {
  write_all(fd_, offset, bytes, path_);
}

void OutputFile::read_at(int64_t offset, std::span<uint8_t> out) const { read_all(fd_, offset, out, path_); }

void OutputFile::start_writeback(int64_t offset, int64_t size) {
  ::sync_file_range(fd_, offset, size, SYNC_FILE_RANGE_WRITE);
}

void OutputFile::commit(bool sync) {
  if (sync && ::fdatasync(fd_) != 0) throw write_error(path_);
  if (replace_) {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      throw system_trouble("cannot rename the finished output", path_);
  } else if (!rename_to_free_name({path_, folder_, temporary_})) {
    // A hard link fails likewise if the name is taken.
    if (::link(temporary_.c_str(), path_.c_str()) != 0) {
      if (errno == EEXIST) throw exists_error(path_);
      throw system_trouble("cannot rename the finished output", path_);
    }
    ::unlink(temporary_.c_str());
  }
  committed_ = true;
  if (sync) sync_folder(folder_);
}

std::unique_ptr<Output> make_output(std::string path, bool is_folder, bool replace) {
  if (is_folder) return std::make_unique<OutputFolder>(std::move(path), replace);
  return std::make_unique<OneFile>(std::move(path), replace);
}

}  // namespace uckpt
