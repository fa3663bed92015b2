// Writing one output file so that nobody ever sees it half-written: a hidden temporary beside it, locked,
// filled, synced and renamed. After any end of the process, also a kill, the output's path holds what it held
// before.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace uckpt {

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
  void open_locked(bool replace);
  std::string path_, folder_, temporary_;
  bool replace_;
  int fd_ = -1;
  bool committed_ = false;
};

}  // namespace uckpt
