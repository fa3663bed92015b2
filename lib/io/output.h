// Writing an output so that nobody ever sees it half-written: a hidden temporary beside it, locked, filled,
// synced and renamed. After any end of the process, also a kill, the output's path holds what it held before.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace uckpt {

// An output of one file.
class OutputFile {
 public:
  // Makes (or takes over from a dead process) the temporary of `path`. Throws trouble if `path` exists and
  // not `replace`, if another process is writing it, or if the folder cannot be written.
  OutputFile(std::string path, bool replace);
  ~OutputFile();  // removes the temporary unless committed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& temporary() const { return temporary_; }

  // Reserves the blocks, so that a full disk is found before the copy. File systems without it are fine.
  void preallocate(int64_t size);
  void write_at(int64_t offset, std::span<const uint8_t> bytes);  // thread-safe
  void read_at(int64_t offset, std::span<uint8_t> out) const;
  void start_writeback(int64_t offset, int64_t size);  // a hint, never fails
  // Renames the temporary to the path; with `sync` its bytes and its name are on the disk before this
  // returns.
  void commit(bool sync);

 private:
  void open_locked();
  std::string path_, folder_, temporary_;
  bool replace_;
  int fd_ = -1;
  bool committed_ = false;
};

// An output of any number of files, which appear together. Files are counted from 0 as they are added; of an
// output of one file the only one has the name "".
class Output {
 public:
  virtual ~Output() = default;
  virtual const std::string& path() const = 0;
  // Makes an empty file, and the folders above it; tells the path where it lies for now.
  virtual std::string add(std::string_view name) = 0;
  // As the same of OutputFile. Thread-safe but for `preallocate`.
  virtual void preallocate(uint32_t file, int64_t size) = 0;
  virtual void write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) = 0;
  virtual void read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const = 0;
  virtual void start_writeback(uint32_t file, int64_t offset, int64_t size) = 0;
  virtual void commit(bool sync) = 0;
};

// Throws as the constructor of OutputFile. A folder takes the name at once and whole, also where it replaces
// another one.
std::unique_ptr<Output> make_output(std::string path, bool is_folder, bool replace);

}  // namespace uckpt
