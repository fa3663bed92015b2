#include "lib/formats/hdf5/plain_header.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "lib/base/checked.h"
#include "lib/formats/hdf5/consolidated.h"

namespace uckpt::hdf5 {
namespace {

constexpr uint64_t kUndefined = ~uint64_t{0};
constexpr size_t kMaxHeaderBytes = 4096, kWindowBytes = 16 << 10, kMaxHeapBytes = 64 << 10;

// Reads forward; past the end everything is zero and `failed` is set.
class Cursor {
 public:
  explicit Cursor(ByteSpan bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    T value = 0;
    if (const ByteSpan part = take(sizeof(T)); !part.empty()) value = load_le<T>(part.data());
    return value;
  }
  ByteSpan take(size_t count) {
    if (count > left()) failed = true;
    if (failed) return {};
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  size_t left() const { return bytes_.size() - at_; }
  size_t at() const { return at_; }

  bool failed = false;

 private:
  ByteSpan bytes_;
  size_t at_ = 0;
};

bool begins_with(ByteSpan bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

enum MessageType : uint8_t {
  kNil = 0,
  kDataspace = 1,
  kDatatype = 3,
  kFillValue = 5,
  kLayout = 8,
  kAttribute = 12,
  kAttributeInfo = 21,
};
// Flags of a message; others say that its body lies elsewhere, or may.
constexpr uint8_t kConstant = 1, kNotToShare = 4;

class Parser {
 public:
  explicit Parser(bool with_attributes) : with_attributes_(with_attributes) {}

  std::optional<PlainHeader> parse(ByteSpan bytes) {
    const auto messages = messages_of(bytes);
    if (!messages) return std::nullopt;
    Cursor in(*messages);
    while (in.left() >= kMessageHead) {  // less than that is a gap
      const auto type = in.get<uint8_t>();
      const auto size = in.get<uint16_t>();
      const auto flags = in.get<uint8_t>();
      const ByteSpan body = in.take(size);
      if (in.failed || (flags & ~(kConstant | kNotToShare)) != 0 || !take(type, flags, body))
        return std::nullopt;
    }
    constexpr uint32_t kNeeded = 1u << kDataspace | 1u << kDatatype | 1u << kFillValue | 1u << kLayout;
    if ((seen_ & kNeeded) != kNeeded) return std::nullopt;
    return std::move(header_);
  }

 private:
  static constexpr size_t kMessageHead = 4;

  // What lies between the head and the checksum, which is checked.
  static std::optional<ByteSpan> messages_of(ByteSpan bytes) {
    constexpr uint8_t kSizeWidth = 3, kAttributeOrder = 12, kPhaseChange = 16, kTimes = 32;
    Cursor in(bytes);
    if (!begins_with(in.take(4), "OHDR") || in.get<uint8_t>() != 2) return std::nullopt;
    const auto flags = in.get<uint8_t>();
    if ((flags & kAttributeOrder) != 0 || flags > (kTimes | kPhaseChange | kSizeWidth)) return std::nullopt;
    if ((flags & kTimes) != 0) in.take(16);
    if ((flags & kPhaseChange) != 0) in.take(4);
    uint64_t size = 0;
    for (int byte = 0; byte < 1 << (flags & kSizeWidth); ++byte)
      size |= uint64_t{in.get<uint8_t>()} << (8 * byte);
    if (in.failed || size > kMaxHeaderBytes) return std::nullopt;
    const size_t begin = in.at(), end = begin + size;
    in.take(size);
    const auto checksum = in.get<uint32_t>();
    if (in.failed || metadata_checksum(bytes.first(end)) != checksum) return std::nullopt;
    return bytes.subspan(begin, size);
  }

  bool take(uint8_t type, uint8_t flags, ByteSpan body) {
    if (type == kNil) return true;
    if (type == kAttribute) return take_attribute(body);
    if (type > kAttributeInfo || (seen_ >> type & 1) != 0) return false;  // the second one is not read
    seen_ |= 1u << type;
    switch (type) {
      case kDataspace:
        return take_dataspace(body);
      case kDatatype:
      case kFillValue:
        add_to_form(type, flags, body);
        return true;
      case kLayout:
        return take_layout(body);
      case kAttributeInfo:
        return take_attribute_info(body);
      default:
        return false;
    }
  }

  // A body's size comes first, so that no two headers have one form by accident.
  void add_to_form(uint8_t type, uint8_t flags, ByteSpan body) {
    const auto size = static_cast<uint16_t>(body.size());
    for (const auto byte : {type, flags, static_cast<uint8_t>(size & 0xff), static_cast<uint8_t>(size >> 8)})
      header_.form += static_cast<char>(byte);
    header_.form.append(reinterpret_cast<const char*>(body.data()), body.size());
  }

  bool take_dataspace(ByteSpan body) {
    constexpr uint8_t kScalar = 0, kSimple = 1, kHasMaximum = 1;
    Cursor in(body);
    const auto version = in.get<uint8_t>(), rank = in.get<uint8_t>(), flags = in.get<uint8_t>(),
               kind = in.get<uint8_t>();
    if (version != 2 || rank > H5S_MAX_RANK || flags > kHasMaximum) return false;
    if (kind != (rank == 0 ? kScalar : kSimple)) return false;
    header_.shape.resize(rank);
    for (int64_t& size : header_.shape) size = in.get<int64_t>();
    const ByteSpan sizes = body.subspan(4, in.failed ? 0 : size_t{8} * rank);
    // One that may grow is none whose bytes lie in one place.
    if (flags == kHasMaximum && !std::ranges::equal(in.take(sizes.size()), sizes)) return false;
    if (std::ranges::any_of(header_.shape, [](int64_t size) { return size <= 0; })) return false;
    const auto numel = checked_product(header_.shape);
    if (in.failed || in.left() != 0 || !numel || !checked_mul(*numel, 16)) return false;
    header_.elements = *numel;
    return true;
  }

  bool take_layout(ByteSpan body) {
    constexpr uint8_t kContiguous = 1;
    Cursor in(body);
    const auto version = in.get<uint8_t>(), kind = in.get<uint8_t>();
    if ((version != 3 && version != 4) || kind != kContiguous) return false;
    header_.offset = in.get<int64_t>();
    header_.stored_bytes = in.get<int64_t>();
    return !in.failed && header_.offset > 0 && header_.stored_bytes > 0 &&
           checked_add(header_.offset, header_.stored_bytes);
  }

  // No attributes but those in the header.
  static bool take_attribute_info(ByteSpan body) {
    Cursor in(body);
    const auto version = in.get<uint8_t>(), flags = in.get<uint8_t>();
    const auto heap = in.get<uint64_t>(), names = in.get<uint64_t>();
    return !in.failed && version == 0 && flags == 0 && heap == kUndefined && names == kUndefined;
  }

  bool take_attribute(ByteSpan body) {
    constexpr size_t kLengthIndexAndPlace = 16;
    if (!with_attributes_) return true;
    Cursor in(body);
    const auto version = in.get<uint8_t>(), flags = in.get<uint8_t>();
    const auto name_size = in.get<uint16_t>(), type_size = in.get<uint16_t>(),
               space_size = in.get<uint16_t>();
    in.get<uint8_t>();  // the name's encoding
    const ByteSpan name_bytes = in.take(name_size);
    if (in.failed || version != 3 || name_bytes.empty() || name_bytes.back() != 0) return false;
    const std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_size - 1u);
    if (name.find('\0') != std::string::npos || name == attribute::kShape) return false;
    if (name != attribute::kDtype && name != attribute::kModuleDtype) return true;
    const bool is_second =
        std::ranges::any_of(header_.texts, [&](const PlainHeader::Text& t) { return t.attribute == name; });
    const ByteSpan type = in.take(type_size);
    in.take(space_size);
    constexpr uint8_t kVariableLength = 9;
    if (in.failed || is_second || flags != 0 || in.left() != kLengthIndexAndPlace || type.empty() ||
        (type[0] & 0xf) != kVariableLength)
      return false;
    add_to_form(kAttribute, flags, body.first(in.at()));
    PlainHeader::Text text{name, in.get<uint32_t>(), 0, 0};
    text.heap = in.get<uint64_t>();
    text.index = in.get<uint32_t>();
    header_.texts.push_back(std::move(text));
    return true;
  }

  bool with_attributes_;
  uint32_t seen_ = 0;  // by message type
  PlainHeader header_;
};

void mix(uint32_t& a, uint32_t& b, uint32_t& c) {
  const auto step = [](uint32_t& x, uint32_t& y, uint32_t& z, int bits) {
    x -= z;
    x ^= std::rotl(z, bits);
    z += y;
  };
  step(a, b, c, 4);
  step(b, c, a, 6);
  step(c, a, b, 8);
  step(a, b, c, 16);
  step(b, c, a, 19);
  step(c, a, b, 4);
}

uint32_t finish(uint32_t a, uint32_t b, uint32_t c) {
  const auto step = [](uint32_t& x, uint32_t y, int bits) {
    x ^= y;
    x -= std::rotl(y, bits);
  };
  step(c, b, 14);
  step(a, c, 11);
  step(b, a, 25);
  step(c, b, 16);
  step(a, c, 4);
  step(b, a, 14);
  step(c, b, 24);
  return c;
}

// Bytes of the file, as many as there are.
size_t read_up_to(int fd, uint64_t offset, std::span<uint8_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

// The superblock is at the file's very beginning, addresses and lengths have 8 bytes, and nothing in it says
// that the metadata is anywhere else than at its address.
bool is_plain_superblock(int fd) {
  constexpr std::string_view kMagic = "\x89HDF\r\n\x1a\n";
  std::array<uint8_t, 28> bytes{};
  if (read_up_to(fd, 0, bytes) != bytes.size() || !begins_with(bytes, kMagic)) return false;
  const uint8_t version = bytes[8];
  return (version == 2 || version == 3) && bytes[9] == 8 && bytes[10] == 8 &&
         load_le<uint64_t>(&bytes[12]) == 0 && load_le<uint64_t>(&bytes[20]) == kUndefined;
}

}  // namespace

uint32_t metadata_checksum(ByteSpan bytes) {
  uint32_t a = 0xdeadbeef + static_cast<uint32_t>(bytes.size()), b = a, c = a;
  const auto add = [&](const uint8_t* words) {
    a += load_le<uint32_t>(words);
    b += load_le<uint32_t>(words + 4);
    c += load_le<uint32_t>(words + 8);
  };
  for (; bytes.size() > 12; bytes = bytes.subspan(12)) {
    add(bytes.data());
    mix(a, b, c);
  }
  if (bytes.empty()) return c;
  std::array<uint8_t, 12> last{};
  std::ranges::copy(bytes, last.begin());
  add(last.data());
  return finish(a, b, c);
}

std::optional<PlainHeader> parse_plain_header(ByteSpan bytes, bool with_attributes) {
  return Parser(with_attributes).parse(bytes);
}

PlainHeaders::PlainHeaders(hid_t file, bool with_attributes) : with_attributes_(with_attributes) {
  void* descriptor = nullptr;
  if (H5Fget_vfd_handle(file, H5P_DEFAULT, &descriptor) < 0 || !descriptor) return;
  const int fd = *static_cast<int*>(descriptor);
  if (is_plain_superblock(fd)) fd_ = fd;
}

// Neighbours in a group mostly are neighbours in the file.
ByteSpan PlainHeaders::bytes_at(uint64_t address, size_t wanted) {
  const auto inside = [&] {
    return address >= window_at_ && address - window_at_ <= window_.size() &&
           window_.size() - (address - window_at_) >= wanted;
  };
  if (!inside()) {
    window_.resize(std::max(kWindowBytes, wanted));
    window_.resize(read_up_to(fd_, address, window_));
    window_at_ = address;
  }
  return ByteSpan(window_).subspan(address - window_at_);
}

std::optional<PlainHeader> PlainHeaders::header_at(uint64_t address) {
  constexpr size_t kUsual = 512, kHeadAndChecksum = 64;
  if (fd_ < 0 || static_cast<int64_t>(address) <= 0) return std::nullopt;
  if (auto header = parse_plain_header(bytes_at(address, kUsual), with_attributes_)) return header;
  return parse_plain_header(bytes_at(address, kMaxHeaderBytes + kHeadAndChecksum), with_attributes_);
}

std::optional<Entry> PlainHeaders::look(uint64_t address) {
  const auto header = header_at(address);
  if (!header) return std::nullopt;
  const auto form = forms_.find(header->form);
  if (form == forms_.end() || !form->second.is_known) return std::nullopt;
  const auto bytes = checked_mul(header->elements, form->second.item_bytes);
  if (bytes != header->stored_bytes) return std::nullopt;
  Entry entry;
  entry.kind = Entry::Kind::kTensor;
  entry.dtype = form->second.dtype;
  entry.big_endian = form->second.big_endian;
  entry.shape = header->shape;
  entry.offset = header->offset;
  entry.stored_bytes = header->stored_bytes;
  if (!take_texts(*header, entry)) return std::nullopt;
  return entry;
}

void PlainHeaders::learn(uint64_t address, const Entry& said) {
  const auto header = header_at(address);
  if (!header || forms_.contains(header->form)) return;
  Form& form = forms_[header->form];
  Entry seen;
  form.dtype = said.dtype;
  form.big_endian = said.big_endian;
  form.item_bytes = item_size(said.dtype);
  form.is_known = said.kind == Entry::Kind::kTensor && said.shape == header->shape &&
                  said.offset == header->offset && said.stored_bytes == header->stored_bytes &&
                  checked_mul(header->elements, form.item_bytes) == header->stored_bytes &&
                  take_texts(*header, seen) && seen.dtype_name == said.dtype_name &&
                  seen.module_dtype == said.module_dtype && !said.logical_shape;
}

bool PlainHeaders::take_texts(const PlainHeader& header, Entry& entry) {
  for (const PlainHeader::Text& text : header.texts) {
    auto value = text_of(text);
    if (!value) return false;
    (text.attribute == attribute::kDtype ? entry.dtype_name : entry.module_dtype) = std::move(*value);
  }
  return true;
}

std::optional<std::string> PlainHeaders::text_of(const PlainHeader::Text& text) {
  if (heap_at_ != text.heap && !open_heap(text.heap)) return std::nullopt;
  const auto found = heap_objects_.find(text.index);
  if (found == heap_objects_.end() || found->second.second != text.length || text.length == 0)
    return std::nullopt;
  const auto* begin = reinterpret_cast<const char*>(heap_bytes_.data() + found->second.first);
  return std::string(begin, strnlen(begin, text.length));
}

// A collection of the global heap: objects with a number each, up to the free space.
bool PlainHeaders::open_heap(uint64_t address) {
  constexpr size_t kHead = 16, kAlign = 8;
  heap_at_ = 0;
  heap_objects_.clear();
  if (static_cast<int64_t>(address) <= 0) return false;
  heap_bytes_.resize(kHead);
  if (read_up_to(fd_, address, heap_bytes_) != kHead || !begins_with(heap_bytes_, "GCOL") ||
      heap_bytes_[4] != 1)
    return false;
  const auto size = load_le<uint64_t>(&heap_bytes_[8]);
  if (size < kHead || size > kMaxHeapBytes) return false;
  heap_bytes_.resize(size);
  if (read_up_to(fd_, address, heap_bytes_) != size) return false;
  Cursor in(heap_bytes_);
  in.take(kHead);
  while (in.left() >= kHead) {
    const auto index = in.get<uint16_t>();
    in.take(6);  // how often it is referred to
    const auto length = in.get<uint64_t>();
    if (index == 0) break;
    if (length > in.left()) return false;
    const size_t begin = in.at();
    in.take(static_cast<size_t>(length));
    in.take(std::min(in.left(), (kAlign - length % kAlign) % kAlign));
    if (!heap_objects_.emplace(index, std::pair(begin, length)).second) return false;
  }
  heap_at_ = address;
  return true;
}

}  // namespace uckpt::hdf5
