// `.metadata`: the pickle that says what a distributed checkpoint holds and where.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "lib/formats/dcp/stored.h"
#include "lib/io/input.h"
#include "lib/pickle/value.h"

namespace uckpt::dcp {

struct Metadata {
  Stored stored;             // tensors and objects in the order of the state dict
  std::string version;       // "1.0.0"; empty in old files
  std::string json;          // a view of what is no tensor: version, storage_meta, key paths
  bool is_megatron = false;  // written by Megatron-core's own classes
  std::map<std::string, GlobalClass> globals;
  std::optional<Error> refusal;  // a dangerous call: it may be looked at and not converted
};

// Reads the whole file through the data-only pickle machine. Throws refused `dcp.metadata`, `dcp.size`,
// `dcp.chunk_bounds`, `dcp.no_storage` for what is malformed, naming the key; `pickle.…` for the pickle
// itself.
Metadata read_metadata(const ByteSource& file, const pickle::Limits& limits, bool want_json);

}  // namespace uckpt::dcp
