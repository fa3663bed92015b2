#include "lib/formats/safetensors/header.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/strict_json.h"

namespace uckpt::safetensors {
namespace {

constexpr uint64_t kMaxSigned = std::numeric_limits<int64_t>::max();

// A table entry while its fields come by, in whatever order.
struct RawEntry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape, offsets;
};

// Walks {"name": {"dtype": …, "shape": […], "data_offsets": [b, e]}, …, "__metadata__": {string: string}},
// where null is as good as no metadata. Fields that an entry has beyond these three are skipped, as the
// reference reader does.
class HeaderVisitor final : public JsonVisitor {
 public:
  explicit HeaderVisitor(Header& header) : header_(header) {}

  void open_object() override {
    switch (place()) {
      case Place::kOutside:
        places_.push_back(Place::kTop);
        return;
      case Place::kTop:
        open_member();
        return;
      case Place::kEntry:
        if (is_known_field()) fail_field("an object");
        [[fallthrough]];
      case Place::kIgnored:
        places_.push_back(Place::kIgnored);
        return;
      default:
        fail("an object");
    }
  }
  void open_array() override {
    if (place() == Place::kEntry && key_ == "shape") {
      entry_.shape.emplace();
      places_.push_back(Place::kShape);
    } else if (place() == Place::kEntry && key_ == "data_offsets") {
      entry_.offsets.emplace();
      places_.push_back(Place::kOffsets);
    } else if (place() == Place::kIgnored || (place() == Place::kEntry && !is_known_field())) {
      places_.push_back(Place::kIgnored);
    } else {
      fail("a list");
    }
  }
  void close() override {
    const Place left = place();
    places_.pop_back();
    if (left == Place::kEntry) finish_entry();
  }
  void key(const std::string& name) override { key_ = name; }
  void text(const std::string& value) override {
    if (place() == Place::kMetadata) {
      header_.metadata.emplace_back(key_, value);
    } else if (place() == Place::kEntry && key_ == "dtype") {
      entry_.dtype = value;
    } else {
      scalar("a string");
    }
  }
  void count(uint64_t value) override {
    if (place() == Place::kShape) {
      entry_.shape->push_back(value);
    } else if (place() == Place::kOffsets) {
      if (entry_.offsets->size() == 2) fail_field("more than two numbers");
      entry_.offsets->push_back(value);
    } else {
      scalar("a number");
    }
  }
  void other(std::string_view what) override {
    const bool is_no_metadata = place() == Place::kTop && key_ == "__metadata__" && what == "null";
    if (!is_no_metadata) scalar(what);
  }

 private:
  enum class Place : uint8_t { kOutside, kTop, kMetadata, kEntry, kShape, kOffsets, kIgnored };

  Place place() const { return places_.empty() ? Place::kOutside : places_.back(); }
  bool is_known_field() const { return key_ == "dtype" || key_ == "shape" || key_ == "data_offsets"; }

  void open_member() {
    if (key_ == "__metadata__") {
      places_.push_back(Place::kMetadata);
    } else {
      places_.push_back(Place::kEntry);
      entry_ = RawEntry{key_, {}, {}, {}};
    }
  }
  // A value that is fine only where nobody looks at it.
  void scalar(std::string_view what) {
    if (place() == Place::kIgnored || (place() == Place::kEntry && !is_known_field())) return;
    fail(what);
  }
  [[noreturn]] void fail(std::string_view found) const {
    switch (place()) {
      case Place::kOutside:
        throw refused("safetensors.header", cat("header: expected a JSON object, found ", found));
      case Place::kTop:
        throw refused("safetensors.field", cat("header entry: expected an object, found ", found))
            .in_tensor(key_);
      case Place::kMetadata:
        throw refused("safetensors.metadata",
                      cat("`__metadata__` value of `", escape(key_), "`: expected a string, found ", found));
      default:
        fail_field(found);
    }
  }
  [[noreturn]] void fail_field(std::string_view found) const {
    const std::string_view expected = key_ == "dtype"   ? "a string"
                                      : key_ == "shape" ? "a list of non-negative integers"
                                                        : "two non-negative integers";
    throw refused("safetensors.field",
                  cat("field `", escape(key_), "`: expected ", expected, ", found ", found))
        .in_tensor(entry_.name);
  }
  void finish_entry() {
    const auto need = [&](bool there, std::string_view field) {
      if (!there)
        throw refused("safetensors.field", cat("field `", field, "` is missing")).in_tensor(entry_.name);
    };
    need(entry_.dtype.has_value(), "dtype");
    need(entry_.shape.has_value(), "shape");
    need(entry_.offsets.has_value(), "data_offsets");
    try {
      header_.entries.push_back(checked_entry());
    } catch (Error& e) {
      throw e.in_tensor(entry_.name);
    }
  }
  Entry checked_entry() const;

  Header& header_;
  std::vector<Place> places_;
  std::string key_;
  RawEntry entry_;
};

// Bits of all elements. Multiplied one by one, as the reference reader does: a zero further on does not
// excuse a product that overflows before it.
std::optional<int64_t> bits_of_shape(const std::vector<uint64_t>& shape, int element_bits) {
  int64_t bits = 1;
  for (uint64_t size : shape) {
    if (size > kMaxSigned || __builtin_mul_overflow(bits, static_cast<int64_t>(size), &bits))
      return std::nullopt;
  }
  return checked_mul(bits, element_bits);
}

Entry HeaderVisitor::checked_entry() const {
  const std::optional<DType> dtype = dtype_from_safetensors(*entry_.dtype);
  if (!dtype) throw refused("safetensors.dtype", cat("dtype `", escape(*entry_.dtype), "` is unknown"));
  if (entry_.offsets->size() != 2) {
    throw refused("safetensors.field",
                  cat("field `data_offsets`: expected two numbers, found ", entry_.offsets->size()));
  }
  const uint64_t begin = (*entry_.offsets)[0], end = (*entry_.offsets)[1];
  if (begin > end || end > kMaxSigned) {
    throw refused("safetensors.offsets", cat("data_offsets [", begin, ", ", end, "] are no range"));
  }
  const std::optional<int64_t> bits = bits_of_shape(*entry_.shape, bits_of(*dtype));
  if (!bits) throw refused("safetensors.shape", "shape: the number of elements overflows");
  if (*bits % 8 != 0) {
    throw refused("safetensors.shape",
                  cat("shape: ", *bits, " bits of ", name_of(*dtype), " are no whole bytes"));
  }
  if (static_cast<uint64_t>(*bits / 8) != end - begin) {
    throw refused("safetensors.size", cat("shape and dtype make ", *bits / 8, " bytes, data_offsets [", begin,
                                          ", ", end, "] hold ", end - begin));
  }
  return {entry_.name, *dtype, Shape(entry_.shape->begin(), entry_.shape->end()), static_cast<int64_t>(begin),
          static_cast<int64_t>(end)};
}

// Sorted by offset the tensors must cover the data exactly: no hole, no overlap, nothing behind the last.
void check_cover(std::vector<Entry>& entries, int64_t data_bytes) {
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  int64_t at = 0;
  for (const Entry& e : entries) {
    if (e.begin != at) {
      throw refused(
          e.begin > at ? "safetensors.hole" : "safetensors.overlap",
          cat("data begins at byte ", e.begin, ": expected ", at,
              e.begin > at ? ", so bytes between belong to no tensor" : ", so it overlaps the tensor before"))
          .in_tensor(e.name);
    }
    at = e.end;
  }
  if (at > data_bytes) {
    throw refused("safetensors.truncated",
                  cat("file is cut short: tensors end at data byte ", at, ", the file at ", data_bytes));
  }
  if (at < data_bytes) {
    throw refused("safetensors.trailing", cat("bytes after the last tensor: tensors end at data byte ", at,
                                              ", the file at ", data_bytes));
  }
}

Error bad_length(const ByteSource& file, uint64_t length) {
  Error e =
      refused("safetensors.header_size", cat("header length: expected at most ",
                                             std::min(kMaxHeaderBytes, file.size() - 8), ", found ", length));
  const Bytes head = file.read_range(0, std::min<int64_t>(file.size(), 24));
  if (std::string(head.begin(), head.end()).starts_with("version https://git-lfs")) {
    e.hint("this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`");
  }
  return e;
}

std::string read_header_text(const ByteSource& file) {
  if (file.size() < 8) {
    throw refused("safetensors.truncated",
                  cat("file is too short for a header: expected at least 8 bytes, found ", file.size()));
  }
  const uint64_t length = load_le<uint64_t>(file.read_range(0, 8).data());
  if (length > static_cast<uint64_t>(std::min(kMaxHeaderBytes, file.size() - 8)))
    throw bad_length(file, length);
  const Bytes bytes = file.read_range(8, static_cast<int64_t>(length));
  return {bytes.begin(), bytes.end()};
}

// Nothing but spaces may stand around the JSON object: no byte order mark, NUL or newline.
std::string_view without_spaces(std::string_view text) {
  const size_t first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) throw refused("safetensors.header", "header is empty");
  text = text.substr(first, text.find_last_not_of(' ') - first + 1);
  if (text.front() != '{') throw refused("safetensors.header", "header does not begin with a JSON object");
  if (text.back() != '}') {
    throw refused("safetensors.header", "header does not end with its JSON object and spaces");
  }
  return text;
}

}  // namespace

const std::string* Header::metadata_value(std::string_view key) const {
  const auto at = std::ranges::find(metadata, key, &std::pair<std::string, std::string>::first);
  return at == metadata.end() ? nullptr : &at->second;
}

Header read_header(const ByteSource& file) try {
  const std::string text = read_header_text(file);
  Header header;
  header.data_at = 8 + static_cast<int64_t>(text.size());
  HeaderVisitor visitor(header);
  parse_strict_json(without_spaces(text), kMaxJsonDepth, visitor);
  check_cover(header.entries, file.size() - header.data_at);
  return header;
} catch (Error& e) {
  throw e.in_file(file.name());
}

}  // namespace uckpt::safetensors
