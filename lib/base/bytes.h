// Little-endian loads from byte ranges.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace uckpt {

static_assert(std::endian::native == std::endian::little, "uckpt is written for little-endian machines");

using ByteSpan = std::span<const uint8_t>;
using Bytes = std::vector<uint8_t>;

template <class T>
T load_le(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
void store_le(uint8_t* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

}  // namespace uckpt
