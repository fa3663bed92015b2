// A model as Hugging Face's libraries leave it: one file of weights, or several and an index that says which
// tensor lies in which, beside small files of configuration; or the cache that such a model was fetched into.
// How a file of weights is read is for each format to say.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/formats/format.h"
#include "lib/formats/hugging_face/index.h"
#include "lib/formats/hugging_face/model_folder.h"

namespace uckpt::hugging_face {

// What a format's files of weights are called.
struct WeightFiles {
  std::string_view code;                    // errors begin with it: "safetensors"
  std::string_view what;                    // "safetensors"
  std::string_view ends;                    // ".safetensors"
  std::span<const std::string_view> usual;  // "model": its file is the model where there is no index
  std::string index_ends() const { return std::string(ends) + ".index.json"; }
  // "model.safetensors.index.json", and of a variant "model.safetensors.index.fp16.json".
  bool is_index(std::string_view name) const;
};

// The path of the index beside `model-00001-of-00002.safetensors`, told from names alone: in a cache of
// Hugging Face it is a link to elsewhere. Nothing for a file that is no shard.
std::string index_of_shard(const std::string& path, const WeightFiles& files);
// For the catalog of a file that is a shard.
std::string one_shard_warning(std::string_view index);

class ModelReader {
 public:
  ModelReader(const WeightFiles& files, const OpenOptions& options) : options_(options), files_(files) {}
  ModelReader(const ModelReader&) = delete;
  ModelReader& operator=(const ModelReader&) = delete;
  virtual ~ModelReader() = default;

  // A folder, a cache or a snapshot in it, an index, or one file of weights. Throws refused
  // `CODE.missing_shard`, `.missing_tensor`, `.duplicate`, `.index`, `.ambiguous` and `.no_index`, and what
  // reading a file throws.
  Catalog read(const Target& target);

 protected:
  // Reads one file of weights into the catalog; each of its tensors is to be claimed.
  virtual void add_tensors(std::shared_ptr<ByteSource> file, const std::string& name) = 0;
  // Of all files that the index names.
  virtual void check_size(uint64_t /*promised*/) {}
  // Throws where another file has the tensor, too.
  void claim(const std::string& tensor, const ByteSource& file);

  const OpenOptions& options_;
  Catalog catalog_;
  size_t file_count() const { return names_.size(); }

 private:
  void read_folder(const ModelFolder& folder);
  void read_indexed(const ModelFolder& folder, const std::string& index_name);
  void read_unindexed(const ModelFolder& folder, std::vector<std::string> files);
  void add_file(std::shared_ptr<ByteSource> file, const std::string& name);
  void check_all_there(const ModelFolder& folder, const Index& index, const std::vector<std::string>& shards);
  // Holds what was read against what the index promised.
  void check_index(const Index& index);
  void finish(const ModelFolder& folder);
  void describe();
  Error refuse(std::string_view what, std::string message) const;

  const WeightFiles files_;
  std::vector<std::string> names_;                   // of the files read
  std::unordered_map<std::string, size_t> file_of_;  // of each tensor: index into `names_`
};

}  // namespace uckpt::hugging_face
