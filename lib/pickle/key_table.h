// Every dict of a document in one open-addressed table: dict and key to value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace uckpt::pickle {

class Document;

class KeyTable {
 public:
  // Hashes are seeded once per process, so that a file cannot be made to collide.
  static uint64_t hash_bytes(const void* data, size_t size, uint64_t kind);
  static uint64_t hash_int(uint64_t value, uint64_t kind);

  // False if `dict` has the key already. `key` stands for all nodes equal to it: a scalar is compared by
  // value, anything else by its id. `hash` must be key_hash() of a scalar.
  bool insert(const Document& doc, uint32_t dict, uint32_t key, uint64_t hash, uint32_t value);
  // What insert() was given, of a key that is there.
  void erase(const Document& doc, uint32_t dict, uint32_t key, uint64_t hash);
  uint32_t find_text(const Document& doc, uint32_t dict, std::string_view key) const;
  uint32_t find_int(const Document& doc, uint32_t dict, int64_t key) const;
  size_t memory() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    uint32_t dict, key, value, tag;  // tag: 32 bits of the hash of dict and key
  };
  void grow();
  template <class Equal>
  const Slot* find(uint32_t dict, uint32_t tag, Equal equal) const;

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

// Hash of None, bool, int, float, text and bytes by value; equal keys (1, 1.0, True) hash alike.
uint64_t scalar_hash(const Document& doc, uint32_t id);
bool same_scalar(const Document& doc, uint32_t a, uint32_t b);
bool is_scalar(const Document& doc, uint32_t id);

}  // namespace uckpt::pickle
