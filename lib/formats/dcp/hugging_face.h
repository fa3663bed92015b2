// The shards that HuggingFaceStorageWriter(save_distributed=True) leaves: plain safetensors files, one for
// each writing rank and target file, whose metadata says where each tensor's box begins.
//
// Facts: read off folders by torch 2.13. There is no `.metadata`; the sizes of whole tensors stand nowhere
// and are as large as the boxes reach.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/formats/dcp/items.h"
#include "lib/formats/dcp/stored.h"
#include "lib/formats/settings_json.h"

namespace uckpt::dcp {

// Do these files look like such shards: `shard-RRRRR-model-FFFFF-of-NNNNN.safetensors`, and no others?
bool are_shards(const std::vector<std::string>& entries);

struct HuggingFaceShards {
  Stored stored;
  std::vector<std::shared_ptr<ByteSource>> files;  // parallel to stored.files
  std::vector<std::vector<ItemTensor>> items;      // parallel to stored.tensors and their chunks
};

// Throws refused: `dcp.missing_files` where the numbers in the names have gaps, `dcp.sharding_info` where a
// file does not say where its boxes lie, `dcp.dtype` and `dcp.shape` where two disagree, and what the reader
// of safetensors headers throws. That chunks tile their tensors is for the caller to check.
HuggingFaceShards read_shards(const InputFolder& folder, const std::vector<std::string>& entries);

// `dcp.missing_files` where an embedding has fewer rows than the model's configuration says: of shards that
// lack the last ranks' nothing else tells. `arguments` are the configuration's numbers.
std::optional<Error> lost_rows(const Stored& stored, const Arguments& arguments);

}  // namespace uckpt::dcp
