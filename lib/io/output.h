// Writing an output so that nobody ever sees it half-written: a hidden temporary beside it that is filled,
// synced and renamed. After any end of the process, also a kill, the output's path holds what it held before.
// Who writes holds the output's Claim (lib/io/claim.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/io/claim.h"

namespace uckpt {

// What is at the hidden place when an output is made.
enum class LeftOver {
  kDiscarded,  // it is removed: the output begins empty
  kContinued,  // its files are opened as they are
};

// An output of one file.
class OutputFile {
 public:
  // Claims `path` and makes its temporary. Throws trouble if `path` exists and not `replace`, if it is
  // something else than a regular file, if another process is writing it, or if the folder cannot be written.
  OutputFile(std::string path, bool replace);
  // The same for whoever holds the claim.
  OutputFile(const Claim& claim, bool replace, LeftOver left, bool direct = false);
  ~OutputFile();  // removes the temporary unless it is committed or kept
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& path() const { return staged_.path; }
  const std::string& temporary() const { return staged_.temporary; }

  // Reserves the blocks, so that a full disk is found before the copy. File systems without it are fine.
  void preallocate(int64_t size);
  void write_at(int64_t offset, std::span<const uint8_t> bytes);  // thread-safe
  bool is_direct() const { return direct_fd_ >= 0; }              // whole pages go past the page cache
  void read_at(int64_t offset, std::span<uint8_t> out) const;
  void start_writeback(int64_t offset, int64_t size);  // a hint, never fails
  void sync() const;
  // Renames the temporary to the path; with `sync` its bytes and its name are on the disk before this
  // returns.
  void commit(bool sync);
  void keep(bool kept) { kept_ = kept; }

 private:
  void open(LeftOver left, bool direct);
  std::optional<Claim> claim_;  // where nobody else holds it
  StagedPath staged_;
  bool replace_;
  int fd_ = -1, direct_fd_ = -1;
  bool committed_ = false, kept_ = false;
};

// A text that appears whole under its name.
void write_text_file(const std::string& path, std::string_view text, bool replace, bool sync);

// An output of any number of files, which appear together. Files are counted from 0 as they are added; of an
// output of one file the only one has the name "".
class Output {
 public:
  virtual ~Output() = default;
  virtual const std::string& path() const = 0;
  // Makes an empty file, and the folders above it, or opens the one that is left; tells where it lies for
  // now.
  virtual std::string add(std::string_view name) = 0;
  // As the same of OutputFile. Thread-safe once all files are added.
  virtual void preallocate(uint32_t file, int64_t size) = 0;
  virtual void write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) = 0;
  virtual void read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const = 0;
  virtual bool is_direct() const = 0;  // of files that were added
  // A new descriptor of a file, past the page cache; -1: there is none to be had.
  virtual int open_direct(uint32_t /*file*/) const { return -1; }
  virtual void start_writeback(uint32_t file, int64_t offset, int64_t size) = 0;
  virtual void sync() const = 0;  // all that was written so far is on the disk
  virtual void commit(bool sync) = 0;
  virtual void keep(bool kept) = 0;  // leave the temporary for another run, unless committed
};

// Throws as the constructor of OutputFile. A folder takes the name at once and whole, also where it replaces
// another one. `direct`: past the page cache where the file system can and a PageBuffer is written.
std::unique_ptr<Output> make_output(const Claim& claim, bool is_folder, bool replace, LeftOver left,
                                    bool direct = false);

}  // namespace uckpt
