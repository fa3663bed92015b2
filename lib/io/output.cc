#include "lib/io/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/direct.h"
#include "lib/io/output_folder.h"

namespace uckpt {

namespace {

class OneFile final : public Output {
 public:
  OneFile(const Claim& claim, bool replace, LeftOver left, bool direct)
      : file_(claim, replace, left, direct) {}
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
  bool is_direct() const override { return file_.is_direct(); }
  int open_direct(uint32_t) const override { return uckpt::open_direct(file_.temporary()); }
  void sync() const override { file_.sync(); }
  void commit(bool sync) override { file_.commit(sync); }
  void keep(bool kept) override { file_.keep(kept); }

 private:
  OutputFile file_;
};

}  // namespace

OutputFile::OutputFile(std::string path, bool replace)
    : claim_(std::in_place, path), staged_(stage(std::move(path), "file")), replace_(replace) {
  open(LeftOver::kDiscarded, false);
}

OutputFile::OutputFile(const Claim& claim, bool replace, LeftOver left, bool direct)
    : staged_(stage(claim.output(), "file")), replace_(replace) {
  open(left, direct);
}

void OutputFile::open(LeftOver left, bool direct) {
  struct stat st {};
  if (::stat(staged_.path.c_str(), &st) == 0 && S_ISDIR(st.st_mode))
    throw trouble("output.folder", "expected the name of a file to write, found a folder")
        .in_file(staged_.path);
  check_free_or_replaceable(staged_.path, replace_);
  int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;
  if (left == LeftOver::kDiscarded) {
    remove_tree(staged_.temporary);
    flags |= O_CREAT | O_EXCL;
  }
  fd_ = uninterrupted([&] { return ::open(staged_.temporary.c_str(), flags, 0666); });
  if (fd_ < 0) throw system_trouble("cannot create the output", staged_.path);
  if (direct) direct_fd_ = open_direct(staged_.temporary);
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  if (!committed_ && !kept_ && same_file(fd_, staged_.temporary)) ::unlink(staged_.temporary.c_str());
  ::close(fd_);
  if (direct_fd_ >= 0) ::close(direct_fd_);
}

void OutputFile::preallocate(int64_t size) { reserve_blocks(fd_, size, staged_.path); }

void OutputFile::write_at(int64_t offset, std::span<const uint8_t> bytes) {
  write_direct(direct_fd_, fd_, offset, bytes, staged_.path);
}

void OutputFile::read_at(int64_t offset, std::span<uint8_t> out) const {
  read_all(fd_, offset, out, staged_.path);
}

void OutputFile::start_writeback(int64_t offset, int64_t size) {
  ::sync_file_range(fd_, offset, size, SYNC_FILE_RANGE_WRITE);
}

void OutputFile::sync() const {
  sync_data(fd_, staged_.path);
  sync_folder(staged_.folder);
}

void OutputFile::commit(bool sync) {
  if (sync) sync_data(fd_, staged_.path);
  if (replace_) {
    if (uninterrupted([&] { return ::rename(staged_.temporary.c_str(), staged_.path.c_str()); }) != 0)
      throw system_trouble("cannot rename the finished output", staged_.path);
  } else if (!rename_to_free_name(staged_)) {
    // A hard link fails likewise if the name is taken.
    if (uninterrupted([&] { return ::link(staged_.temporary.c_str(), staged_.path.c_str()); }) != 0) {
      if (errno == EEXIST) throw exists_error(staged_.path);
      throw system_trouble("cannot rename the finished output", staged_.path);
    }
    ::unlink(staged_.temporary.c_str());
  }
  committed_ = true;
  if (sync) sync_new_name(staged_);
}

void write_text_file(const std::string& path, std::string_view text, bool replace, bool sync) {
  OutputFile file(path, replace);
  file.write_at(0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  file.commit(sync);
}

std::unique_ptr<Output> make_output(const Claim& claim, bool is_folder, bool replace, LeftOver left,
                                    bool direct) {
  if (is_folder) return std::make_unique<OutputFolder>(claim, replace, left, direct);
  return std::make_unique<OneFile>(claim, replace, left, direct);
}

}  // namespace uckpt
