// Reading input: files by range, never whole; folders without leaving them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"

namespace uckpt {

// Bytes that can be read at an offset. Tests and fuzzers use a MemorySource.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual int64_t size() const = 0;
  // Fills `out` from `offset`, or throws Error (`io.short_read`) if the source ends before.
  virtual void read_at(int64_t offset, std::span<uint8_t> out) const = 0;
  // Runs of `length` bytes that lie `stride` apart from `offset` on, back to back into `out`, whose size is a
  // multiple of `length`. Throws likewise.
  virtual void read_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const;
  // A new descriptor of the file, past the page cache; -1: there is none to be had.
  virtual int open_direct() const { return -1; }
  virtual const std::string& name() const = 0;             // for messages
  Bytes read_range(int64_t offset, int64_t length) const;  // checked against size() before allocating
};

class MemorySource : public ByteSource {
 public:
  MemorySource(std::string name, Bytes bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {}
  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  void read_at(int64_t offset, std::span<uint8_t> out) const override;
  const std::string& name() const override { return name_; }

 private:
  std::string name_;
  Bytes bytes_;
};

// One regular input file. Its descriptor stays open while the process has descriptors to spare, else each
// read opens it again, and a file that was replaced or changed meanwhile is an error (`io.changed`). Reading
// is thread-safe.
class InputFile : public ByteSource {
 public:
  // `path` must name a regular file (a symbolic link is followed). Throws trouble if it cannot be opened.
  static std::shared_ptr<InputFile> open(std::string path);
  ~InputFile() override;

  int64_t size() const override { return size_; }
  void read_at(int64_t offset, std::span<uint8_t> out) const override;
  // Short runs come out of a mapping of the file.
  void read_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const override;
  int open_direct() const override;
  const std::string& name() const override { return path_; }

 private:
  struct Impl;
  bool is_still(int fd) const;
  class Access;
  InputFile(std::string path, int64_t size, std::unique_ptr<Impl> impl);
  std::string path_;
  int64_t size_;
  std::unique_ptr<Impl> impl_;
};

// A checkpoint's folder. Names are relative, of plain parts; symbolic links may lead to places inside only.
class InputFolder {
 public:
  explicit InputFolder(std::string path);
  const std::string& path() const { return path_; }
  // Names of the entries directly in `sub` (empty: the folder itself), sorted naturally; folders end in '/'.
  std::vector<std::string> list(std::string_view sub = "") const;
  bool has_file(std::string_view name) const;
  bool has_folder(std::string_view name) const;
  // Refuses names that are absolute, climb (`..`), hold NUL, or lead outside through a link (`name.escapes`).
  std::shared_ptr<InputFile> open(std::string_view name) const;
  std::string join(std::string_view name) const;  // for messages

 private:
  std::string resolve(std::string_view name) const;
  std::string path_, real_;
};

bool is_folder(const std::string& path);

// Lets the process open as many files as the system allows. Called once by the command line.
void raise_file_limit();

}  // namespace uckpt
