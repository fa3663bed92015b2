// UTF-8 as Python writes it: lone surrogates are possible.
#pragma once

#include "lib/base/bytes.h"

namespace uckpt::pickle {

enum class Utf8Check { kGood, kSurrogates, kBroken };

Utf8Check check_utf8(ByteSpan text);
bool is_ascii(ByteSpan text);

// The code point at `text[i]`, which must be valid (surrogates included); `i` moves behind it.
inline uint32_t next_code_point(ByteSpan text, size_t& i) {
  const uint32_t lead = text[i++];
  if (lead < 0x80) return lead;
  const int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  uint32_t code = lead & (0x3fu >> more);
  for (int k = 0; k < more; ++k) code = code << 6 | (text[i++] & 0x3fu);
  return code;
}

}  // namespace uckpt::pickle
