// The strict reading of the zip archives that torch.save writes: stored members only, read by range.
//
// The central directory is the authority and every local header must agree with it. Nothing may hide: no
// bytes before, after or in comments, no two names that a careless reader would mix up, no member inside
// another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/io/input.h"

namespace uckpt::torch {

struct ZipMember {
  std::string name;
  int64_t offset = 0;     // of the data
  int64_t size = 0;       // in the archive
  uint32_t crc = 0;       // 0: not computed by the writer
  int64_t header_at = 0;  // of the local header
  uint16_t flags = 0;
  uint16_t method = 0;    // stored; the program text of TorchScript may be compressed, and is never read
  int64_t full_size = 0;  // of what it expands to
};

class ZipDirectory {
 public:
  // Reads the end records, the directory and the local headers. Throws Error (`zip.…`).
  explicit ZipDirectory(const ByteSource& source);

  const std::vector<ZipMember>& members() const { return members_; }
  const std::string& root() const { return root_; }  // the one top folder: "archive"
  // A member below the top folder (`data/0`); nullptr if there is none.
  const ZipMember* find(std::string_view name) const;
  bool has_folder(std::string_view name) const;  // something lies below root/name/
  // The bytes of a member of at most `limit` bytes, checksum verified.
  Bytes read(const ZipMember& member, int64_t limit) const;

 private:
  struct End {
    uint64_t count, size, offset;  // of the directory
  };
  End read_end();
  End read_end64(const uint8_t* end, int64_t end_at);
  void read_directory(const End& end);
  size_t read_entry(const Bytes& directory, size_t at, ZipMember& member);
  void check_local_headers();
  void check_local_header(ZipMember& member, const uint8_t* header, int64_t available);
  void check_names();

  const ByteSource& source_;
  int64_t directory_at_ = 0;
  std::vector<ZipMember> members_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::string root_;
};

}  // namespace uckpt::torch
