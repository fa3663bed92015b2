#include "lib/pickle/key_table.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <random>

#include "lib/pickle/document.h"

namespace uckpt::pickle {

namespace {

constexpr uint32_t kFree = kNoNode;
enum HashKind : uint64_t { kIntKey = 1, kTextKey, kBytesKey, kRealKey, kNoneKey, kBigKey };

uint64_t seed() {
  static const uint64_t value = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) ^ device();
  }();
  return value;
}

// A full 64-bit mix (the finaliser of MurmurHash3).
uint64_t mix(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  return h ^ (h >> 33);
}

uint32_t tag_of(uint32_t dict, uint64_t hash) {
  return static_cast<uint32_t>(mix(hash + dict * 0x9e3779b97f4a7c15ULL) >> 32);
}

// The integer that a key compares equal to, if any: True is 1 and 1.0 is 1.
std::optional<int64_t> as_int(const Node& node) {
  if (node.kind == Kind::kBool) return node.a;
  if (node.kind == Kind::kInt) return node.wide();
  if (node.kind != Kind::kReal) return std::nullopt;
  const double real = std::bit_cast<double>(node.wide());
  if (!(real >= -9223372036854775808.0 && real < 9223372036854775808.0) || real != std::trunc(real))
    return std::nullopt;
  return static_cast<int64_t>(real);
}

}  // namespace

uint64_t KeyTable::hash_int(uint64_t value, uint64_t kind) { return mix(value + mix(seed() + kind)); }

uint64_t KeyTable::hash_bytes(const void* data, size_t size, uint64_t kind) {
  const auto* p = static_cast<const uint8_t*>(data);
  uint64_t h = seed() + kind + size * 0x9e3779b97f4a7c15ULL;
  for (; size >= 8; p += 8, size -= 8) h = mix(h ^ load_le<uint64_t>(p));
  uint64_t tail = 0;
  if (size > 0) std::memcpy(&tail, p, size);
  return mix(h ^ tail);
}

bool is_scalar(const Document& doc, uint32_t id) {
  const Kind kind = doc.node(id).kind;
  return kind <= Kind::kBytes;
}

uint64_t scalar_hash(const Document& doc, uint32_t id) {
  const Node& node = doc.node(id);
  if (const auto number = as_int(node)) return KeyTable::hash_int(static_cast<uint64_t>(*number), kIntKey);
  switch (node.kind) {
    case Kind::kText: {
      const std::string_view text = doc.text_of(node);
      return KeyTable::hash_bytes(text.data(), text.size(), kTextKey);
    }
    case Kind::kReal:
      return KeyTable::hash_int(static_cast<uint64_t>(node.wide()), kRealKey);
    case Kind::kNone:
      return KeyTable::hash_int(0, kNoneKey);
    default: {
      const ByteSpan bytes = doc.bytes_of(node);
      return KeyTable::hash_bytes(bytes.data(), bytes.size(),
                                  node.kind == Kind::kBytes ? kBytesKey : kBigKey);
    }
  }
}

bool same_scalar(const Document& doc, uint32_t a, uint32_t b) {
  if (a == b) return true;
  const Node &x = doc.node(a), &y = doc.node(b);
  const auto i = as_int(x), j = as_int(y);
  if (i || j) return i == j;
  if (x.kind != y.kind) return false;
  switch (x.kind) {
    case Kind::kNone:
      return true;
    case Kind::kReal:
      return std::bit_cast<double>(x.wide()) == std::bit_cast<double>(y.wide());
    case Kind::kText:
      return doc.text_of(x) == doc.text_of(y);
    case Kind::kBytes:
    case Kind::kBigInt: {
      const ByteSpan p = doc.bytes_of(x), q = doc.bytes_of(y);
      return p.size() == q.size() && (p.empty() || std::memcmp(p.data(), q.data(), p.size()) == 0);
    }
    default:
      return false;
  }
}

template <class Equal>
const KeyTable::Slot* KeyTable::find(uint32_t dict, uint32_t tag, Equal equal) const {
  if (slots_.empty()) return nullptr;
  const size_t mask = slots_.size() - 1;
  for (size_t i = tag & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.dict == kFree || (slot.tag == tag && slot.dict == dict && equal(slot.key))) return &slot;
  }
}

void KeyTable::grow() {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(old.empty() ? 64 : old.size() * 2, Slot{kFree, 0, 0, 0});
  const size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.dict == kFree) continue;
    size_t i = slot.tag & mask;
    while (slots_[i].dict != kFree) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

bool KeyTable::insert(const Document& doc, uint32_t dict, uint32_t key, uint64_t hash, uint32_t value) {
  if ((used_ + 1) * 4 > slots_.size() * 3) grow();
  const uint32_t tag = tag_of(dict, hash);
  const Slot* found = find(dict, tag, [&](uint32_t other) {
    return is_scalar(doc, key) ? is_scalar(doc, other) && same_scalar(doc, key, other) : key == other;
  });
  if (found->dict != kFree) return false;
  slots_[static_cast<size_t>(found - slots_.data())] = {dict, key, value, tag};
  ++used_;
  return true;
}

// What follows in the run moves up, so that no search ends too early.
void KeyTable::erase(const Document& doc, uint32_t dict, uint32_t key, uint64_t hash) {
  const Slot* found = find(dict, tag_of(dict, hash), [&](uint32_t other) {
    return other == key || (is_scalar(doc, key) && is_scalar(doc, other) && same_scalar(doc, key, other));
  });
  if (!found || found->dict == kFree) return;
  const size_t mask = slots_.size() - 1;
  auto hole = static_cast<size_t>(found - slots_.data());
  for (size_t i = (hole + 1) & mask; slots_[i].dict != kFree; i = (i + 1) & mask) {
    const size_t home = slots_[i].tag & mask;
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    slots_[hole] = slots_[i];
    hole = i;
  }
  slots_[hole].dict = kFree;
  --used_;
}

uint32_t KeyTable::find_text(const Document& doc, uint32_t dict, std::string_view key) const {
  const uint64_t hash = hash_bytes(key.data(), key.size(), kTextKey);
  const Slot* slot = find(dict, tag_of(dict, hash), [&](uint32_t other) {
    const Node& node = doc.node(other);
    return node.kind == Kind::kText && doc.text_of(node) == key;
  });
  return slot && slot->dict != kFree ? slot->value : kNoNode;
}

uint32_t KeyTable::find_int(const Document& doc, uint32_t dict, int64_t key) const {
  const Slot* slot = find(dict, tag_of(dict, hash_int(static_cast<uint64_t>(key), kIntKey)),
                          [&](uint32_t other) { return as_int(doc.node(other)) == key; });
  return slot && slot->dict != kFree ? slot->value : kNoNode;
}

}  // namespace uckpt::pickle
