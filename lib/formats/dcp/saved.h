// A distributed checkpoint opened: what `.metadata` says, the data files, and where each chunk's elements
// lie.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/formats/dcp/items.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/stored.h"
#include "lib/formats/format.h"

namespace uckpt::dcp {

struct Saved {
  Stored stored;
  std::unique_ptr<DataFiles> files;
  std::vector<std::vector<ItemTensor>> items;              // parallel to stored.tensors and their items
  std::vector<std::pair<std::string, std::string>> views;  // of each metadata file: name, JSON
  std::string version;                                     // "1.0.0"; empty in old files
  bool is_megatron = false;                                // written by Megatron-core's own classes
  std::map<std::string, GlobalClass> globals;              // of `.metadata` and the chunks' items
  std::optional<Error> refusal;                            // it may be looked at and not converted
};

// `.metadata`; else what each rank kept for itself: `__0.metadata`, `__1.metadata`, …; else those of the
// model and of its optimizer, which Accelerate saves apart: `pytorch_model_fsdp_0/.metadata`,
// `optimizer_0/.metadata`.
std::vector<std::string> metadata_files(const InputFolder& folder, const std::vector<std::string>& entries);
// Is it the one or the other of Accelerate's two?
bool is_of_part(std::string_view metadata_file);

// Reads `.metadata`, checks that chunks tile their tensors, and opens every chunk. Throws refused
// `dcp.unfinished` where there is no `.metadata`, and what the readers of its parts throw.
Saved open_saved(const InputFolder& folder, const std::vector<std::string>& entries,
                 const OpenOptions& options);

// Warns of what looks like a data file, and is none of this save. A rank that had nothing to write may have
// left an empty one.
void warn_of_other_files(const InputFolder& folder, const std::vector<std::string>& entries,
                         const Saved& saved, Catalog& catalog);

// Throws what `check_tiling` does, naming the file at `path` and the tensor.
void check_all_tiled(const Stored& stored, const std::string& path);

// Puts what was read into a catalog.
class CatalogBuilder {
 public:
  CatalogBuilder(const OpenOptions& options, Catalog& catalog) : options_(options), catalog_(catalog) {}

  void add_file(std::shared_ptr<ByteSource> file) { files_.push_back(catalog_.add_file(std::move(file))); }
  // The data files, and what was met in `.metadata`.
  void add_saved(const Saved& saved);

  // Room for all chunks, so that nothing is held twice while it grows.
  void reserve(const Stored& stored);
  // Under one name and state each, with all of its chunks.
  void add_tensor(const StoredTensor& stored, std::vector<ItemTensor>& items, const std::string& state,
                  const std::string& name);
  void add_state_number(const StateNumber& number);
  // An item, its view, and tensors inside it, of state "other" under the object's key.
  // Without `tensors_inside` those are for the caller to put somewhere.
  void add_object(const StoredBytes& stored, const ItemObject& item, bool tensors_inside = true);
  // `.metadata` itself, to be kept.
  void add_views(const InputFolder& folder, Saved& saved);

  // For readers that put chunks together in their own way: where a chunk's elements lie in the catalog. Its
  // checksum is registered at the first call.
  struct Place {
    FileId file;
    uint32_t record;
    int64_t offset;  // bytes in the file, of the chunk's first element
    uint8_t flags;
  };
  Place place(uint32_t data_file, ItemTensor& item);
  // Why the tensor can be listed and not converted; empty if it can. Notes what its items call.
  std::string refusal_of(const StoredTensor& stored, const std::vector<ItemTensor>& items);

  // Keeps the first one.
  void refuse(Error error) {
    if (!catalog_.refusal) catalog_.refusal = std::move(error);
  }

 private:
  Tensor& enter(std::string_view state, const std::string& name, DType dtype, const Shape& shape);
  bool add_number(Tensor& tensor, const StoredTensor& stored, const std::vector<ItemTensor>& items);
  void add_tensors_inside(const StoredBytes& stored, const torch::TorchFile& file);

  static constexpr size_t kMostInside = 1 << 20;
  const OpenOptions& options_;
  Catalog& catalog_;
  std::vector<FileId> files_;
  size_t inside_ = 0;
};

}  // namespace uckpt::dcp
