// The stream that torch.save wrote before torch 1.6: five pickles back to back, then the storages.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/formats/torch/storage_table.h"
#include "lib/io/input.h"
#include "lib/pickle/document.h"

namespace uckpt::torch {

struct LegacyStream {
  // Magic number, protocol version, system info, the object, the list of storage keys.
  std::unique_ptr<pickle::Document> magic, version, system, object, keys;
  int64_t object_at = 0, object_size = 0;
  int64_t storages_at = 0;  // where the first storage's count lies
};

// Does it begin with the magic number's pickle, whole or damaged?
bool looks_like_legacy(ByteSpan head);

// Reads the five pickles. Throws `legacy.…` and `pickle.…`.
LegacyStream read_legacy(const ByteSource& source, const pickle::Limits& limits);

// Walks the storages by their counts alone, in the order of the key list, and fills in `offset`. Each key
// must be used and listed once, each count be the pickle's, and the file end after the last.
void locate_storages(const ByteSource& source, const LegacyStream& stream, StorageTable& table);

}  // namespace uckpt::torch
