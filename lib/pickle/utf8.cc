#include "lib/pickle/utf8.h"

namespace uckpt::pickle {

namespace {

// Bytes of the character that begins with this byte; 0 for a byte that begins none.
size_t sequence_length(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

}  // namespace

bool is_ascii(ByteSpan text) {
  size_t i = 0;
  uint64_t seen = 0;
  for (; i + 8 <= text.size(); i += 8) seen |= load_le<uint64_t>(text.data() + i);
  for (; i < text.size(); ++i) seen |= text[i];
  return (seen & 0x8080808080808080ULL) == 0;
}

Utf8Check check_utf8(ByteSpan text) {
  if (is_ascii(text)) return Utf8Check::kGood;
  bool surrogates = false;
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text[i]);
    if (length == 0 || length > text.size() - i) return Utf8Check::kBroken;
    for (size_t k = 1; k < length; ++k)
      if ((text[i + k] & 0xc0) != 0x80) return Utf8Check::kBroken;
    size_t after = i;
    const uint32_t code = next_code_point(text, after);
    const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    if (overlong || code > 0x10ffff) return Utf8Check::kBroken;
    surrogates |= code >= 0xd800 && code < 0xe000;
    i = after;
  }
  return surrogates ? Utf8Check::kSurrogates : Utf8Check::kGood;
}

}  // namespace uckpt::pickle
