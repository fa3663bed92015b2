#include "lib/formats/torch/legacy_stream.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/machine.h"

namespace uckpt::torch {

namespace {

using pickle::Kind;
using pickle::Value;

// LONG1 of ten bytes: 0x1950a86a20f9469cfc6c.
constexpr std::array<uint8_t, 2> kLong = {0x8a, 0x0a};
constexpr std::array<uint8_t, 10> kMagic = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
constexpr int64_t kVersion = 1001;
constexpr int64_t kFirstWindow = 16 << 10;

// The pickle at `at`, reading more of the file until it is whole.
std::unique_ptr<pickle::Document> read_pickle(const ByteSource& source, int64_t& at,
                                              const pickle::Limits& limits) {
  const int64_t available = source.size() - at;
  for (int64_t window = kFirstWindow;; window *= 2) {
    const int64_t size = std::min(window, available);
    auto bytes = std::make_shared<const Bytes>(source.read_range(at, size));
    if (auto document = pickle::parse_prefix(std::move(bytes), static_cast<size_t>(available), limits)) {
      at += static_cast<int64_t>(document->end());
      return document;
    }
  }
}

bool is_magic(const Value& value) {
  return value.kind() == Kind::kBigInt && std::ranges::equal(*value.bytes(), kMagic);
}

// Its `little_endian` says on what machine the file was written, not how: torch swaps what a big-endian one
// writes and reads (torch/csrc/serialization.cpp), so the storages are little-endian always. A system info
// that would run code is reported like any other danger.
void check_system(const pickle::Document& system) {
  const Value root = system.root();
  if (!root.is_dict()) {
    if (system.danger()) return;
    throw refused("legacy.system", "expected the system info as a dict, found something else");
  }
  const Value version = root.get("protocol_version");
  if (version && version.integer() != kVersion)
    throw refused("legacy.version",
                  cat("expected protocol version ", kVersion, " in the system info, found another"));
  const Value little = root.get("little_endian");
  if (!little || !little.boolean())
    throw refused("legacy.system", "expected little_endian in the system info, found none");
}

}  // namespace

bool looks_like_legacy(ByteSpan head) {
  // PROTO n, from protocol 4 on a FRAME with its length, then a LONG1 of ten bytes: no other pickle of a
  // checkpoint begins with a number.
  if (head.size() < 2 || head[0] != 0x80 || head[1] < 2 || head[1] > 5) return false;
  const size_t number = head[1] < 4 ? 2 : 11;
  if (head.size() < number + kLong.size() || (number > 2 && head[2] != 0x95)) return false;
  return std::equal(kLong.begin(), kLong.end(), head.begin() + static_cast<std::ptrdiff_t>(number));
}

LegacyStream read_legacy(const ByteSource& source, const pickle::Limits& limits) {
  LegacyStream stream;
  int64_t at = 0;
  stream.magic = read_pickle(source, at, limits);
  if (!is_magic(stream.magic->root()))
    throw refused("legacy.magic", "expected the magic number 0x1950a86a20f9469cfc6c, found another");
  stream.version = read_pickle(source, at, limits);
  if (stream.version->root().integer() != kVersion)
    throw refused("legacy.version", cat("expected protocol version ", kVersion, ", found another"));
  stream.system = read_pickle(source, at, limits);
  check_system(*stream.system);
  stream.object_at = at;
  stream.object = read_pickle(source, at, limits);
  stream.object_size = at - stream.object_at;
  stream.keys = read_pickle(source, at, limits);
  stream.storages_at = at;
  return stream;
}

void locate_storages(const ByteSource& source, const LegacyStream& stream, StorageTable& table) {
  const Value keys = stream.keys->root();
  if (keys.kind() != Kind::kList)
    throw refused("legacy.keys", "expected the storage keys as a list, found something else");
  std::unordered_map<std::string_view, Storage*> by_key;
  for (Storage& storage : table.storages()) by_key.emplace(storage.key, &storage);
  int64_t at = stream.storages_at;
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto key = keys.at(i).text();
    if (!key) throw refused("legacy.keys", "expected storage keys as text, found something else");
    const auto found = by_key.find(*key);
    if (found == by_key.end())
      throw refused("legacy.keys", cat("storage key ", escape(*key), " is listed and no tensor uses it"));
    Storage& storage = *found->second;
    if (storage.offset >= 0)
      throw refused("legacy.keys", cat("storage key ", storage.key, " is listed twice"));
    if (storage.item == 0)
      throw refused("legacy.storage", cat("the size of a ", storage.cls, " is not known"));
    if (source.size() - at < 8)
      throw refused("legacy.truncated", cat("the file ends before storage ", storage.key));
    const Bytes count = source.read_range(at, 8);
    if (load_le<int64_t>(count.data()) != storage.numel) {
      throw refused("legacy.count", cat("storage ", storage.key, ": expected ", storage.numel,
                                        " elements, found ", load_le<int64_t>(count.data())));
    }
    at += 8;
    if (!range_inside(at, storage.bytes, source.size())) {
      throw refused("legacy.truncated", cat("storage ", storage.key, ": expected ", storage.bytes,
                                            " bytes, found ", source.size() - at));
    }
    storage.offset = at;
    at += storage.bytes;
  }
  for (const Storage& storage : table.storages())
    if (storage.offset < 0)
      throw refused("legacy.keys", cat("storage ", storage.key, " is used and not listed"));
  if (at != source.size())
    throw refused("legacy.trailing", cat("expected the file to end after the last storage, found ",
                                         source.size() - at, " bytes more"));
}

}  // namespace uckpt::torch
