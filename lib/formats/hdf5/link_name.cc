// How the true names of tensors become names of links, and back.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/hdf5/skeleton.h"

namespace uckpt::hdf5 {
namespace {

bool must_escape(unsigned char c, bool is_utf8) {
  return c == '/' || c == '%' || c < 0x20 || c == 0x7f || (c >= 0x80 && !is_utf8);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string escape_name(std::string_view name) {
  if (name.empty()) return "%";
  if (name == ".") return "%2e";
  if (std::ranges::none_of(name, [](char c) { return must_escape(static_cast<unsigned char>(c), false); }))
    return std::string(name);
  const bool is_utf8 = valid_utf8(name);
  std::string link;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    must_escape(byte, is_utf8) ? link += cat("%", hex(byte, 2)) : link += c;
  }
  return link;
}

std::string unescape_name(std::string_view link) {
  if (link == "%") return "";
  if (link.find('%') == std::string_view::npos) return std::string(link);
  std::string name;
  for (size_t i = 0; i < link.size(); ++i) {
    const int high = link[i] == '%' && i + 2 < link.size() ? hex_digit(link[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(link[i + 2]) : -1;
    name += low >= 0 ? static_cast<char>(high * 16 + low) : link[i];
    if (low >= 0) i += 2;
  }
  return name;
}

}  // namespace uckpt::hdf5
