#include "lib/formats/torch/archive.h"

#include <zlib.h>

#include "lib/base/bytes.h"
#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::torch {

namespace {

constexpr int64_t kAlignment = 64;
constexpr uint32_t kNo32 = 0xffffffff;  // the number stands in the zip64 fields
constexpr uint16_t kUtf8 = 0x800;

template <class T>
void put(Bytes& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof(T));
  store_le(out.data() + at, value);
}

void put_text(Bytes& out, std::string_view text) { out.insert(out.end(), text.begin(), text.end()); }

uint32_t low(int64_t value) { return value < kNo32 ? static_cast<uint32_t>(value) : kNo32; }

struct Member {
  std::string name;
  int64_t size = 0;
  uint32_t crc = 0;
  int64_t header_at = 0, payload_at = 0;
  bool is_wide() const { return size >= kNo32; }
};

// Puts the members one after the other; headers and small payloads become fixed bytes.
class Writer {
 public:
  explicit Writer(TargetFile& file) : file_(file) {}

  // A member whose payload is left open; tells where it begins.
  int64_t open(std::string name, int64_t size) { return begin({std::move(name), size, 0, 0, 0}); }

  void add(std::string name, ByteSpan payload) {
    const auto crc = static_cast<uint32_t>(::crc32_z(0, payload.data(), payload.size()));
    begin({std::move(name), static_cast<int64_t>(payload.size()), crc, 0, 0});
    bytes_.insert(bytes_.end(), payload.begin(), payload.end());
  }

  // Goes on behind a payload that is left open.
  void skip(int64_t bytes) {
    flush();
    at_ += bytes;
  }

  // Where the newest member's checksum is to be written, in its local header.
  int64_t local_crc() const { return members_.back().header_at + 14; }
  size_t count() const { return members_.size(); }

  // The directory; tells where each member's checksum stands in it.
  std::vector<int64_t> finish() {
    flush();
    std::vector<int64_t> crcs;
    const int64_t directory_at = at_;
    for (const Member& m : members_) {
      crcs.push_back(position() + 16);
      put_entry(m);
    }
    put_end(directory_at, position() - directory_at);
    flush();
    file_.size = at_;
    return crcs;
  }

 private:
  int64_t position() const { return at_ + static_cast<int64_t>(bytes_.size()); }

  int64_t begin(Member m) {
    m.header_at = position();
    put<uint32_t>(bytes_, 0x04034b50);
    put<uint16_t>(bytes_, m.is_wide() ? 45 : 20);
    put<uint16_t>(bytes_, kUtf8);
    put<uint16_t>(bytes_, 0);  // stored
    put<uint32_t>(bytes_, 0);  // no date
    put<uint32_t>(bytes_, m.crc);
    put<uint32_t>(bytes_, low(m.size));
    put<uint32_t>(bytes_, low(m.size));
    put<uint16_t>(bytes_, static_cast<uint16_t>(m.name.size()));
    const int64_t wide = m.is_wide() ? 20 : 0;
    const int64_t before = m.header_at + 30 + static_cast<int64_t>(m.name.size()) + wide + 4;
    const int64_t padding = round_up(before, kAlignment) - before;
    put<uint16_t>(bytes_, static_cast<uint16_t>(wide + 4 + padding));
    put_text(bytes_, m.name);
    if (m.is_wide()) {
      put<uint16_t>(bytes_, 1);
      put<uint16_t>(bytes_, 16);
      put<int64_t>(bytes_, m.size);
      put<int64_t>(bytes_, m.size);
    }
    put_text(bytes_, "FB");
    put<uint16_t>(bytes_, static_cast<uint16_t>(padding));
    bytes_.insert(bytes_.end(), static_cast<size_t>(padding), 'Z');
    m.payload_at = position();
    members_.push_back(std::move(m));
    return members_.back().payload_at;
  }

  void put_entry(const Member& m) {
    const bool far = m.header_at >= kNo32;
    const int wide = (m.is_wide() ? 16 : 0) + (far ? 8 : 0);
    put<uint32_t>(bytes_, 0x02014b50);
    put<uint16_t>(bytes_, 45);
    put<uint16_t>(bytes_, wide > 0 ? 45 : 20);
    put<uint16_t>(bytes_, kUtf8);
    put<uint16_t>(bytes_, 0);
    put<uint32_t>(bytes_, 0);
    put<uint32_t>(bytes_, m.crc);
    put<uint32_t>(bytes_, low(m.size));
    put<uint32_t>(bytes_, low(m.size));
    put<uint16_t>(bytes_, static_cast<uint16_t>(m.name.size()));
    put<uint16_t>(bytes_, static_cast<uint16_t>(wide > 0 ? wide + 4 : 0));
    put<uint16_t>(bytes_, 0);  // comment
    put<uint16_t>(bytes_, 0);  // disk
    put<uint16_t>(bytes_, 0);  // attributes
    put<uint32_t>(bytes_, 0);
    put<uint32_t>(bytes_, low(m.header_at));
    put_text(bytes_, m.name);
    if (wide == 0) return;
    put<uint16_t>(bytes_, 1);
    put<uint16_t>(bytes_, static_cast<uint16_t>(wide));
    if (m.is_wide()) {
      put<int64_t>(bytes_, m.size);
      put<int64_t>(bytes_, m.size);
    }
    if (far) put<int64_t>(bytes_, m.header_at);
  }

  // The end of the directory, in both its forms, as torch always writes it.
  void put_end(int64_t directory_at, int64_t directory_size) {
    const int64_t end_at = position();
    const auto count = static_cast<int64_t>(members_.size());
    put<uint32_t>(bytes_, 0x06064b50);
    put<int64_t>(bytes_, 44);
    put<uint16_t>(bytes_, 45);
    put<uint16_t>(bytes_, 45);
    put<uint32_t>(bytes_, 0);
    put<uint32_t>(bytes_, 0);
    put<int64_t>(bytes_, count);
    put<int64_t>(bytes_, count);
    put<int64_t>(bytes_, directory_size);
    put<int64_t>(bytes_, directory_at);
    put<uint32_t>(bytes_, 0x07064b50);
    put<uint32_t>(bytes_, 0);
    put<int64_t>(bytes_, end_at);
    put<uint32_t>(bytes_, 1);
    const auto short_count = static_cast<uint16_t>(count < 0xffff ? count : 0xffff);
    put<uint32_t>(bytes_, 0x06054b50);
    put<uint32_t>(bytes_, 0);
    put<uint16_t>(bytes_, short_count);
    put<uint16_t>(bytes_, short_count);
    put<uint32_t>(bytes_, low(directory_size));
    put<uint32_t>(bytes_, low(directory_at));
    put<uint16_t>(bytes_, 0);
  }

  void flush() {
    if (bytes_.empty()) return;
    const int64_t from = at_;
    at_ = position();
    file_.fixed.push_back({from, std::move(bytes_)});
    bytes_ = {};
  }

  TargetFile& file_;
  std::vector<Member> members_;
  Bytes bytes_;     // not yet given to the file
  int64_t at_ = 0;  // where they begin
};

ByteSpan bytes_of_text(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

std::string archive_root(std::string_view file_name) {
  const size_t slash = file_name.rfind('/');
  if (slash != std::string_view::npos) file_name.remove_prefix(slash + 1);
  const size_t dot = file_name.rfind('.');
  return std::string(dot == std::string_view::npos || dot == 0 ? file_name : file_name.substr(0, dot));
}

std::string Archive::add_storage(int64_t bytes) {
  storages_.push_back({bytes, {}, {}});
  return cat(storages_.size() - 1);
}

void Archive::fill(const Hole& hole) { storages_.back().holes.push_back(hole); }

std::string Archive::add_storage(const Hole& whole) {
  std::string key = add_storage(whole.bytes());
  fill(whole);
  return key;
}

std::string Archive::add_storage(Bytes content) {
  std::string key = add_storage(static_cast<int64_t>(content.size()));
  storages_.back().content = std::move(content);
  return key;
}

void Archive::lay_out(std::string name, Bytes pickle, TargetLayout& layout) && {
  constexpr size_t kMostName = 1024;
  if (root_.empty() || root_.size() > kMostName || root_.find_first_of("/\\:\n") != std::string::npos ||
      root_ == "." || root_ == "..")
    throw refused("torch.root", "a torch.save file cannot be called so").in_file(name);
  const auto file = static_cast<uint32_t>(layout.files.size());
  TargetFile& target = layout.files.emplace_back();
  target.name = std::move(name);
  Writer out(target);
  out.add(cat(root_, "/data.pkl"), pickle);
  out.add(cat(root_, "/.format_version"), bytes_of_text("1"));
  out.add(cat(root_, "/.storage_alignment"), bytes_of_text("64"));
  out.add(cat(root_, "/byteorder"), bytes_of_text("little"));
  std::vector<std::pair<size_t, size_t>> late;  // checksum, member
  for (size_t s = 0; s < storages_.size(); ++s) {
    if (!storages_[s].content.empty()) {
      out.add(cat(root_, "/data/", s), storages_[s].content);
      continue;
    }
    late.emplace_back(layout.checksums.size(), out.count());
    const int64_t at = out.open(cat(root_, "/data/", s), storages_[s].bytes);
    const auto first_hole = static_cast<uint32_t>(layout.holes.size());
    for (Hole hole : storages_[s].holes) {
      hole.file = file;
      hole.offset += at;
      layout.holes.push_back(hole);
    }
    layout.checksums.push_back({file,
                                at,
                                storages_[s].bytes,
                                first_hole,
                                static_cast<uint32_t>(storages_[s].holes.size()),
                                {out.local_crc(), LateChecksum::kNowhere}});
    out.skip(storages_[s].bytes);
  }
  out.add(cat(root_, "/version"), bytes_of_text("3\n"));
  const std::vector<int64_t> crcs = out.finish();
  for (const auto& [checksum, member] : late) layout.checksums[checksum].places[1] = crcs[member];
}

}  // namespace uckpt::torch
