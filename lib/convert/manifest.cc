#include "lib/convert/manifest.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {

namespace {

constexpr std::string_view kFirstLine = "# uckpt sum 1", kGap = "  ";
constexpr int64_t kMaxManifest = int64_t{1} << 30;

std::string in_quotes(std::string_view name) {
  const bool is_plain = escape(name, SIZE_MAX) == name && name.find('\\') == std::string_view::npos;
  if (is_plain) return std::string(name);
  std::string out;
  for (const char c : name) {
    const auto byte = static_cast<uint8_t>(c);
    byte < 0x20 || byte >= 0x7f || c == '\\' ? out += cat("\\x", hex(byte, 2)) : out += c;
  }
  return out;
}

template <class Number>
std::optional<Number> number_of(std::string_view text, int base) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::string> unquoted(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const auto byte =
        text.substr(i).starts_with("\\x") ? number_of<uint8_t>(text.substr(i + 2, 2), 16) : std::nullopt;
    if (!byte || i + 4 > text.size()) return std::nullopt;
    out += static_cast<char>(*byte);
    i += 3;
  }
  return out;
}

std::optional<Shape> shape_of(std::string_view text) {
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return std::nullopt;
  Shape shape;
  for (std::string_view rest = text.substr(1, text.size() - 2); !rest.empty();) {
    const size_t comma = std::min(rest.find(", "), rest.size());
    const auto size = number_of<int64_t>(rest.substr(0, comma), 10);
    if (!size || *size < 0) return std::nullopt;
    shape.push_back(*size);
    rest.remove_prefix(std::min(comma + 2, rest.size()));
  }
  return shape;
}

bool is_digest(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (colon == std::string_view::npos || (kind != "crc64" && kind != "sha256")) return false;
  const std::string_view digits = text.substr(colon + 1);
  return digits.size() == (kind == "crc64" ? 16 : 64) &&
         digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// DIGEST  DTYPE  SHAPE  PATH
std::optional<TensorSum> sum_of(std::string_view line) {
  std::string_view fields[3];
  for (std::string_view& field : fields) {
    const size_t gap = line.find(kGap);
    if (gap == std::string_view::npos) return std::nullopt;
    field = line.substr(0, gap);
    line.remove_prefix(gap + kGap.size());
  }
  const auto dtype = dtype_from_name(fields[1]);
  auto shape = shape_of(fields[2]);
  auto path = unquoted(line);
  if (!is_digest(fields[0]) || !dtype || !shape || !path || path->find('/') == std::string::npos)
    return std::nullopt;
  return TensorSum{std::move(*path), *dtype, std::move(*shape), std::string(fields[0])};
}

bool begins_with(const std::string& path, std::string_view text) try {
  const auto file = InputFile::open(path);
  const auto length = static_cast<int64_t>(text.size());
  if (file->size() < length) return false;
  const Bytes head = file->read_range(0, length);
  return std::string_view(reinterpret_cast<const char*>(head.data()), head.size()) == text;
} catch (const Error&) {
  return false;
}

void sort_by_path(std::vector<TensorSum>& sums) { std::ranges::sort(sums, {}, &TensorSum::path); }

}  // namespace

SumPaths::SumPaths(const Catalog& catalog, std::span<const uint32_t> chosen) {
  for (const uint32_t t : chosen)
    if (catalog.tensors[t].state == state::kMaster) masters_.insert(catalog.tensors[t].name);
}

std::string SumPaths::of(const Tensor& t) const {
  const bool is_beside_master = t.state == state::kParam && masters_.contains(t.name);
  return is_weight(t.state) && !is_beside_master ? cat(kAnyWeight, "/", t.name) : t.path();
}

std::string crc64_text(uint64_t crc64) { return cat("crc64:", hex(crc64, 16)); }

std::string manifest_text(std::vector<TensorSum> sums) {
  sort_by_path(sums);
  std::string out = cat(kFirstLine, "\n");
  for (const TensorSum& sum : sums)
    out += cat(sum.digest, kGap, name_of(sum.dtype), kGap, shape_text(sum.shape), kGap, in_quotes(sum.path),
               "\n");
  return out;
}

bool is_manifest(const std::string& path) { return begins_with(path, kFirstLine); }

bool is_answer_in_json(const std::string& path) { return begins_with(path, "{\"uckpt\": 1,"); }

std::vector<TensorSum> read_manifest(const ByteSource& file) {
  if (file.size() > kMaxManifest)
    throw refused("manifest.size", cat("the manifest is too long: expected at most ", kMaxManifest,
                                       " bytes, found ", file.size()))
        .in_file(file.name());
  const Bytes bytes = file.read_range(0, file.size());
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::vector<TensorSum> sums;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (number == 1 ? line == kFirstLine : line.empty() || line.front() == '#') continue;
    auto sum = number == 1 ? std::nullopt : sum_of(line);
    if (!sum)
      throw refused("manifest.line",
                    cat("line ", number, ": expected ",
                        number == 1 ? cat("`", kFirstLine, "`") : "DIGEST  DTYPE  SHAPE  STATE/NAME",
                        ", found `", escape(line, 60), "`"))
          .in_file(file.name());
    sums.push_back(std::move(*sum));
  }
  sort_by_path(sums);
  const auto twice = std::ranges::adjacent_find(sums, {}, &TensorSum::path);
  if (twice != sums.end())
    throw refused("manifest.twice", "the manifest names it twice")
        .in_file(file.name())
        .in_tensor(twice->path);
  return sums;
}

}  // namespace uckpt
