// What a distributed checkpoint is to hold: tensors and objects, each under its key in a state dict.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/formats/writer.h"
#include "lib/pickle/document.h"
#include "lib/pickle/pickler.h"

namespace uckpt::dcp {

struct ContentTensor {
  std::string key;
  KeyPath path;
  size_t index;  // into WriteRequest::tensors
  bool is_cut;   // over the ranks, as FSDP cuts a parameter; else each rank has all of it
};

// A value that is no tensor: one of these.
struct ContentObject {
  std::string key;
  KeyPath path;
  pickle::Value copied = {};                        // a part of Content::documents
  std::function<void(pickle::Pickler&)> made = {};  // writes the value
  std::optional<Bytes> raw = {};                    // bytes that are no torch.save archive
};

// What the source's reader takes numpy arrays for.
enum class Arrays : uint8_t {
  kAreTensors,  // they can be left out
  kArePlain,    // values like any other: nothing selects them, so all of them stay
};

struct Content {
  std::vector<ContentTensor> tensors;
  std::vector<ContentObject> objects;
  bool has_paths = true;  // the nesting of the keys is kept
  int64_t ranks = 0;      // that wrote the source; 0: nothing tells
  std::vector<std::unique_ptr<pickle::Document>> documents;
  std::shared_ptr<const void> source;  // further trees that `made` copies from
  // Tensors inside objects, by document and node: an index into WriteRequest::tensors, or nothing where it
  // is not selected; then None stands for it.
  std::map<std::pair<const pickle::Document*, uint32_t>, std::optional<size_t>> leaves;

  std::vector<KeyPath> dropped;  // of tensors that are not selected

  void add_tensor(KeyPath path, size_t index, bool is_cut);
  ContentObject& add_object(KeyPath path);
  // Puts None where a tensor was dropped out of a list before others: torch puts lists together by their
  // indices, and cannot load one that has a gap. Throws refused `dcp.list` for a list that no tensor or dict
  // is left in, which torch does not take apart.
  void fill_lists();
  // The leaves of a document of the source: `names` has the index of each tensor in the request under its
  // name, "prefix.a.0", and `taken` counts those that were found. Throws refused `dcp.storage` for a storage
  // that is no tensor's.
  using Names = std::unordered_map<std::string, size_t>;
  void add_leaves(const Catalog& catalog, const pickle::Document& document, const std::string& prefix,
                  const Names& names, Arrays arrays, std::vector<bool>& taken);
};

// Index into the request of all but the objects' tensors, by "state/name".
Content::Names requested_names(const Catalog& catalog, const WriteRequest& request);

// "a.0.b", as torch flattens a state dict.
std::string dotted(const KeyPath& path);

// Does the source keep the `.metadata` of a distributed checkpoint, so that its keys are known?
bool has_own_keys(const Catalog& catalog);

// The keys, the nesting and the objects that a distributed checkpoint had, also where it lies in a
// consolidated file. Nothing if there are none, or if its keys do not name all of the requested tensors
// (renamed ones, say), which `notes` then tells.
std::optional<Content> own_content(const Catalog& catalog, const WriteRequest& request,
                                   std::vector<std::string>& notes);

// The tree of a torch.save file, flattened as torch.distributed.checkpoint.save does it. Nothing if the input
// is no such file, or its tree is no dict or does not have all of the requested tensors.
std::optional<Content> tree_content(const Catalog& catalog, const WriteRequest& request,
                                    std::vector<std::string>& notes);

// The tree that torch.distributed.checkpoint.state_dict.get_state_dict gives of a model and its optimizer:
// `model.NAME`, `optim.state.NAME.STATE`, `optim.param_groups.N.OPTION`. Of each parameter the fp32 master,
// else the weight. Options come from a DeepSpeed source; those of torch's Adam and AdamW that it lacks have
// their defaults.
Content usual_content(const Catalog& catalog, const WriteRequest& request, std::vector<std::string>& notes);

}  // namespace uckpt::dcp
