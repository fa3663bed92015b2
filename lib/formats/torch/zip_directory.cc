#include "lib/formats/torch/zip_directory.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/guards.h"

namespace uckpt::torch {

namespace {

constexpr uint32_t kEndMagic = 0x06054b50, kEnd64Magic = 0x06064b50, kLocator64Magic = 0x07064b50;
constexpr uint32_t kEntryMagic = 0x02014b50, kLocalMagic = 0x04034b50;
constexpr int64_t kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20, kEntrySize = 46, kLocalSize = 30;
constexpr int64_t kMaxDirectory = int64_t{1} << 30;
constexpr uint16_t kEncrypted = 1, kDescriptor = 1 << 3, kPatch = 1 << 5, kStrongEncrypted = 1 << 6,
                   kMasked = 1 << 13;
constexpr uint16_t kRefusedFlags = kEncrypted | kPatch | kStrongEncrypted | kMasked;
constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint32_t kAll32 = 0xffffffff;

uint16_t u16(const uint8_t* p) { return load_le<uint16_t>(p); }
uint32_t u32(const uint8_t* p) { return load_le<uint32_t>(p); }
uint64_t u64(const uint8_t* p) { return load_le<uint64_t>(p); }

Error compressed() {
  Error error =
      refused("zip.compressed", "the archive is compressed: expected stored members, found deflated ones");
  return error.hint("load it with torch.load and save it again with torch.save, which never compresses");
}

// The program of a TorchScript archive, the one thing that its writer compresses.
bool is_program(std::string_view name) {
  return name.substr(std::min(name.find('/'), name.size())).starts_with("/code/");
}

void check_method(const ZipMember& member) {
  if (member.flags & kRefusedFlags) {
    throw refused("zip.flags",
                  cat("expected no encryption and no patch data, found flags 0x", hex(member.flags, 4)))
        .in_member(member.name);
  }
  if (member.method == kDeflated && is_program(member.name)) return;
  if (member.method == kDeflated) throw compressed().in_member(member.name);
  if (member.method != kStored)
    throw refused("zip.method", cat("expected a stored member, found method ", member.method))
        .in_member(member.name);
}

// The 64-bit values that stand in for fields of all ones, in their order.
class Zip64Extra {
 public:
  Zip64Extra(const uint8_t* extra, size_t size) {
    while (size >= 4) {
      const size_t length = u16(extra + 2);
      if (length > size - 4) throw refused("zip.extra", "an extra field runs past its end");
      if (u16(extra) == 1) at_ = extra + 4, left_ = length;
      extra += 4 + length;
      size -= 4 + length;
    }
    if (size != 0)
      throw refused("zip.extra", cat("expected extra fields of whole length, found ", size, " bytes more"));
  }

  uint64_t value(uint32_t field) {
    if (field != kAll32) return field;
    if (left_ < 8)
      throw refused("zip.zip64", "expected a zip64 field for a size or offset of 0xffffffff, found none");
    const uint64_t v = u64(at_);
    at_ += 8;
    left_ -= 8;
    return v;
  }
  bool present() const { return at_ != nullptr; }

 private:
  const uint8_t* at_ = nullptr;
  size_t left_ = 0;
};

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

void check_name(std::string_view name) {
  const auto refuse = [&](std::string_view why) {
    return refused("zip.name", cat("a member's name ", why, ": ", escape(name)));
  };
  if (name.empty()) throw refused("zip.name", "a member has an empty name");
  if (!valid_utf8(name)) throw refuse("is not UTF-8");
  if (name.find('\0') != std::string_view::npos) throw refuse("holds a NUL");
  if (name.find('\\') != std::string_view::npos) throw refuse("holds a backslash");
  for (size_t at = 0; at <= name.size();) {
    const size_t slash = std::min(name.find('/', at), name.size());
    const std::string_view part = name.substr(at, slash - at);
    if (part.empty()) throw refuse("has an empty part");
    if (part == "." || part == "..") throw refuse("climbs");
    at = slash + 1;
  }
}

}  // namespace

ZipDirectory::ZipDirectory(const ByteSource& source) : source_(source) {
  read_directory(read_end());
  check_names();
  check_local_headers();
}

ZipDirectory::End ZipDirectory::read_end() {
  const int64_t size = source_.size();
  if (size < kEndSize)
    throw refused("zip.end", cat("expected a zip archive of at least ", kEndSize, " bytes, found ", size));
  const int64_t end_at = size - kEndSize;
  const Bytes bytes = source_.read_range(end_at, kEndSize);
  const uint8_t* end = bytes.data();
  if (u32(end) != kEndMagic) {
    throw refused("zip.end", cat("expected the zip end record as the last ", kEndSize,
                                 " bytes, found others: the file is cut, or something was appended"));
  }
  if (u16(end + 20) != 0)
    throw refused("zip.comment", cat("expected no comment in the archive, found ", u16(end + 20), " bytes"));
  if (u16(end + 4) != 0 || u16(end + 6) != 0)
    throw refused("zip.disks", "expected an archive of one disk, found several");
  return read_end64(end, end_at);
}

// The zip64 records, where there are some, stand right before the end record.
ZipDirectory::End ZipDirectory::read_end64(const uint8_t* end, int64_t end_at) {
  const uint16_t count_here = u16(end + 8), count = u16(end + 10);
  const uint32_t size = u32(end + 12), offset = u32(end + 16);
  const auto check = [](const End& found, int64_t records_at) {
    if (!range_inside(static_cast<int64_t>(found.offset), static_cast<int64_t>(found.size), records_at) ||
        static_cast<int64_t>(found.offset + found.size) != records_at)
      throw refused("zip.directory", cat("expected the directory to end at byte ", records_at,
                                         ", found it at ", found.offset, " with ", found.size, " bytes"));
    return found;
  };
  const int64_t locator_at = end_at - kLocatorSize;
  Bytes locator = locator_at >= 0 ? source_.read_range(locator_at, kLocatorSize) : Bytes();
  if (locator.empty() || u32(locator.data()) != kLocator64Magic) {
    if (count_here != count) throw refused("zip.disks", "expected all entries on one disk, found several");
    return check({count, size, offset}, end_at);
  }
  const uint64_t end64_at = u64(locator.data() + 8);
  if (u32(locator.data() + 4) != 0 || u32(locator.data() + 16) > 1)
    throw refused("zip.disks", "expected an archive of one disk, found several");
  if (end64_at > static_cast<uint64_t>(locator_at) ||
      static_cast<uint64_t>(locator_at) - end64_at < static_cast<uint64_t>(kEnd64Size))
    throw refused("zip.zip64",
                  cat("expected the zip64 end record before byte ", locator_at, ", found it at ", end64_at));
  const Bytes bytes = source_.read_range(static_cast<int64_t>(end64_at), kEnd64Size);
  const uint8_t* end64 = bytes.data();
  if (u32(end64) != kEnd64Magic || u64(end64 + 4) != static_cast<uint64_t>(locator_at) - end64_at - 12)
    throw refused("zip.zip64", "expected a zip64 end record that ends at its locator, found other bytes");
  if (u32(end64 + 16) != 0 || u32(end64 + 20) != 0 || u64(end64 + 24) != u64(end64 + 32))
    throw refused("zip.disks", "expected an archive of one disk, found several");
  const End found{u64(end64 + 32), u64(end64 + 40), u64(end64 + 48)};
  const bool agrees = (count == 0xffff || count == found.count) &&
                      (count_here == 0xffff || count_here == found.count) &&
                      (size == kAll32 || size == found.size) && (offset == kAll32 || offset == found.offset);
  if (!agrees) throw refused("zip.zip64", "the zip64 end record and the end record contradict each other");
  return check(found, static_cast<int64_t>(end64_at));
}

void ZipDirectory::read_directory(const End& end) {
  directory_at_ = static_cast<int64_t>(end.offset);
  if (end.count > end.size / static_cast<uint64_t>(kEntrySize))
    throw refused("zip.count",
                  cat("the end record counts ", end.count, " members, the directory has room for ",
                      end.size / static_cast<uint64_t>(kEntrySize)));
  if (end.size > static_cast<uint64_t>(kMaxDirectory))
    throw refused("limit.zip_directory",
                  cat("expected a directory of at most 1 GiB, found ", end.size, " bytes"));
  const Bytes directory = source_.read_range(directory_at_, static_cast<int64_t>(end.size));
  members_.resize(static_cast<size_t>(end.count));
  size_t at = 0;
  for (ZipMember& member : members_) at = read_entry(directory, at, member);
  if (at != directory.size())
    throw refused("zip.count", cat("expected ", end.count, " members to fill the directory, found ",
                                   directory.size() - at, " bytes more"));
}

// Returns where the next entry begins.
size_t ZipDirectory::read_entry(const Bytes& directory, size_t at, ZipMember& member) {
  const size_t left = directory.size() - at;
  const uint8_t* p = directory.data() + at;
  if (left < static_cast<size_t>(kEntrySize) || u32(p) != kEntryMagic)
    throw refused("zip.directory", cat("expected a directory entry at byte ",
                                       static_cast<size_t>(directory_at_) + at, ", found other bytes"));
  const size_t name_size = u16(p + 28), extra_size = u16(p + 30), comment_size = u16(p + 32);
  const size_t size = static_cast<size_t>(kEntrySize) + name_size + extra_size + comment_size;
  if (size > left) throw refused("zip.directory", "a directory entry runs past the end of the directory");
  member.name.assign(reinterpret_cast<const char*>(p + kEntrySize), name_size);
  member.flags = u16(p + 8);
  member.method = u16(p + 10);
  check_method(member);
  if (u16(p + 34) != 0) throw refused("zip.disks", "expected an archive of one disk, found several");
  Zip64Extra wide(p + kEntrySize + name_size, extra_size);
  const uint64_t full = wide.value(u32(p + 24)), stored = wide.value(u32(p + 20)),
                 offset = wide.value(u32(p + 42));
  if (full != stored && member.method == kStored) {
    throw refused("zip.size", cat("expected one size for stored bytes, found ", stored, " and ", full))
        .in_member(member.name);
  }
  if (offset > static_cast<uint64_t>(directory_at_) || stored > static_cast<uint64_t>(directory_at_) - offset)
    throw refused("zip.range", "a member lies outside of the archive's data").in_member(member.name);
  member.crc = u32(p + 16);
  member.size = static_cast<int64_t>(stored);
  member.full_size = static_cast<int64_t>(full);
  member.header_at = static_cast<int64_t>(offset);
  return at + size;
}

void ZipDirectory::check_names() {
  std::unordered_set<std::string> seen;
  const ZipMember* pickle = nullptr;
  for (const ZipMember& member : members_) {
    check_name(member.name);
    const std::string_view name = member.name;
    const size_t slash = name.find('/');
    const std::string_view top = slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
    if (top.empty())
      throw refused("zip.name",
                    cat("expected every member in one top folder, found ", escape(name), " outside of it"));
    if (root_.empty()) root_ = top;
    if (top != root_)
      throw refused("zip.name", cat("expected one top folder, found ", escape(root_), " and ", escape(top)));
    if (!seen.insert(folded(name)).second)
      throw refused("zip.duplicate", cat("two members are called ", escape(name)));
    if (name.substr(slash + 1) == "data.pkl") pickle = &member;
    by_name_.emplace(name.substr(slash + 1), static_cast<size_t>(&member - members_.data()));
  }
  if (!pickle)
    throw refused("zip.no_pickle", "expected a torch.save archive with a member data.pkl, found none");
}

void ZipDirectory::check_local_headers() {
  constexpr int64_t kNear = 1024, kMaxWindow = 1 << 20, kGuess = 512;
  std::vector<ZipMember*> order;
  for (ZipMember& member : members_) order.push_back(&member);
  std::ranges::sort(order, {}, &ZipMember::header_at);
  if (!order.empty() && order[0]->header_at != 0)
    throw refused("zip.prefix",
                  cat("expected the first member at byte 0, found it at ", order[0]->header_at));
  Bytes window;
  int64_t window_at = 0, end_before = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    ZipMember& member = *order[i];
    if (member.header_at < end_before)
      throw refused("zip.overlap", "two members share bytes").in_member(member.name);
    const int64_t wanted = std::min(kLocalSize + static_cast<int64_t>(member.name.size()) + kGuess,
                                    directory_at_ - member.header_at);
    if (member.header_at + wanted > window_at + static_cast<int64_t>(window.size())) {
      // Small members lie close together: one read takes as many headers as lie near.
      int64_t until = member.header_at + wanted;
      for (size_t j = i + 1;
           j < order.size() && order[j]->header_at - until < kNear && until - member.header_at < kMaxWindow;
           ++j)
        until = std::min(std::max(until, order[j]->header_at + kLocalSize + kGuess), directory_at_);
      window_at = member.header_at;
      window = source_.read_range(window_at, until - window_at);
    }
    check_local_header(member, window.data() + (member.header_at - window_at),
                       window_at + static_cast<int64_t>(window.size()) - member.header_at);
    end_before = member.offset + member.size;
  }
}

void ZipDirectory::check_local_header(ZipMember& member, const uint8_t* header, int64_t available) {
  const auto fail = [&](std::string code, std::string_view what) {
    return refused(std::move(code), std::string(what)).in_member(member.name);
  };
  if (available < kLocalSize || u32(header) != kLocalMagic)
    throw fail("zip.local", "expected a local header where the directory points, found other bytes");
  const int64_t name_size = u16(header + 26), extra_size = u16(header + 28);
  const int64_t size = kLocalSize + name_size + extra_size;
  Bytes longer;
  if (size > available) {
    if (size > directory_at_ - member.header_at)
      throw fail("zip.local", "a local header runs past the archive's data");
    longer = source_.read_range(member.header_at, size);
    header = longer.data();
  }
  const std::string_view name(reinterpret_cast<const char*>(header + kLocalSize),
                              static_cast<size_t>(name_size));
  if (name != member.name) throw fail("zip.local", "the local header has another name than the directory");
  const uint16_t flags = u16(header + 6);
  if (u16(header + 8) != member.method)
    throw fail("zip.local", "the local header has another method than the directory");
  if ((flags & kRefusedFlags) != 0)
    throw fail("zip.flags", "expected no encryption and no patch data in the local header");
  Zip64Extra wide(header + kLocalSize + name_size, static_cast<size_t>(extra_size));
  // With a data descriptor behind the data, sizes and checksum may be left open here.
  const bool open = (flags & kDescriptor) != 0;
  const auto agrees = [&](uint32_t field, int64_t real) {
    if (open && (field == 0 || (field == kAll32 && !wide.present()))) return true;
    const uint64_t value = wide.value(field);
    return value == static_cast<uint64_t>(real) || (open && value == 0);
  };
  if (!agrees(u32(header + 22), member.full_size) || !agrees(u32(header + 18), member.size))
    throw fail("zip.local", "the local header has another size than the directory");
  const uint32_t crc = u32(header + 14);
  if (crc != member.crc && !(open && crc == 0))
    throw fail("zip.local", "the local header has another checksum than the directory");
  member.offset = member.header_at + size;
  if (!range_inside(member.offset, member.size, directory_at_))
    throw fail("zip.range", "a member runs past the archive's data");
}

const ZipMember* ZipDirectory::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &members_[found->second];
}

bool ZipDirectory::has_folder(std::string_view name) const {
  const std::string prefix = cat(root_, '/', name, '/');
  return std::ranges::any_of(members_, [&](const ZipMember& m) { return m.name.starts_with(prefix); });
}

Bytes ZipDirectory::read(const ZipMember& member, int64_t limit) const {
  if (member.size > limit)
    throw refused("limit.pickle_bytes",
                  cat("expected a member of at most ", limit, " bytes, found ", member.size))
        .in_member(member.name);
  Bytes bytes = source_.read_range(member.offset, member.size);
  if (member.crc != 0) check_crc(bytes, member.crc, member.name);
  return bytes;
}

}  // namespace uckpt::torch
