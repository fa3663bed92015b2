#include "lib/formats/hugging_face/model_reader.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/hugging_face/companions.h"
#include "lib/formats/hugging_face/model_config.h"
#include "lib/formats/strangers.h"

namespace uckpt::hugging_face {
namespace {

std::vector<std::string> with_end(const std::vector<std::string>& names, std::string_view end) {
  std::vector<std::string> out;
  std::ranges::copy_if(names, std::back_inserter(out),
                       [&](const std::string& n) { return n.ends_with(end); });
  return out;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace

bool WeightFiles::is_index(std::string_view name) const {
  return name.ends_with(".json") && name.find(cat(ends, ".index.")) != name.npos;
}

std::string index_of_shard(const std::string& path, const WeightFiles& files) {
  const std::string_view name = base_of(path);
  const size_t of = name.rfind("-of-"), dash = of == name.npos ? of : name.rfind('-', of - 1);
  if (!name.ends_with(files.ends) || of == name.npos || of == 0 || dash == name.npos) return {};
  const std::string index = cat(name.substr(0, dash), files.index_ends());
  if (!has(InputFolder(parent_of(path)).list(), index)) return {};
  return path.substr(0, path.size() - name.size()) + index;
}

std::string one_shard_warning(std::string_view index) {
  return cat("this is one shard of a larger model, and the others are not read: name ", escape(index),
             " for all of it");
}

Catalog ModelReader::read(const Target& target) {
  const std::string folder = target.folder ? target.path : parent_of(target.path);
  const std::string name(target.folder ? "" : base_of(target.path));
  catalog_.path = target.path;
  if (!target.folder && !files_.is_index(name)) {
    add_file(target.file, name);
    describe();
    if (const std::string index = index_of_shard(target.path, files_); !index.empty())
      catalog_.warnings.push_back(one_shard_warning(index));
    return std::move(catalog_);
  }
  const auto place = place_in_cache(folder);
  const InputFolder root(place ? place->root : folder);
  const ModelFolder model = place ? ModelFolder(root, place->inside)
                            : target.folder && is_model_cache(target.entries) ? ModelFolder::in_cache(root)
                                                                              : ModelFolder(root);
  name.empty() ? read_folder(model) : read_indexed(model, name);
  return std::move(catalog_);
}

void ModelReader::read_folder(const ModelFolder& folder) {
  const std::vector<std::string> entries = folder.list();
  std::vector<std::string> indexes;
  std::ranges::copy_if(entries, std::back_inserter(indexes),
                       [&](const std::string& name) { return files_.is_index(name); });
  for (const std::string_view usual : files_.usual) {
    const std::string index = cat(usual, files_.index_ends());
    if (has(indexes, index)) return read_indexed(folder, index);
  }
  if (indexes.size() == 1) return read_indexed(folder, indexes.front());
  if (indexes.size() > 1) {
    throw refuse("ambiguous", cat("the folder holds several models: ", some_of(indexes)))
        .in_file(folder.path())
        .hint("name one of these index files instead of the folder");
  }
  read_unindexed(folder, with_end(entries, files_.ends));
}

void ModelReader::read_unindexed(const ModelFolder& folder, std::vector<std::string> files) {
  for (const std::string_view usual : files_.usual) {
    const std::string single = cat(usual, files_.ends);
    if (std::erase(files, single) == 0) continue;
    if (!files.empty()) catalog_.warnings.push_back(cat("left out, as there is no index: ", some_of(files)));
    files = {single};
    break;
  }
  if (files.size() != 1) {
    throw refuse("no_index", cat("expected one ", files_.what, " file or an index `*", files_.index_ends(),
                                 "`, found ", files.size(), " files without an index"))
        .in_file(folder.path())
        .hint("name one of the files, or fetch the index that belongs to them");
  }
  add_file(folder.open(files.front()), files.front());
  finish(folder);
}

void ModelReader::read_indexed(const ModelFolder& folder, const std::string& index_name) {
  const std::shared_ptr<InputFile> index_file = folder.open(index_name);
  const Index index = read_index(*index_file, files_.code);
  const std::vector<std::string> shards = index.shards();
  check_all_there(folder, index, shards);
  for (const std::string& shard : shards) add_file(folder.open(shard), shard);
  try {
    check_index(index);
    if (index.total_size) check_size(*index.total_size);
  } catch (Error& e) {
    throw e.in_file(index_file->name());
  }
  std::vector<std::string> left = with_end(folder.list(), files_.ends);
  std::erase_if(left, [&](const std::string& n) { return has(shards, n); });
  if (!left.empty())
    catalog_.warnings.push_back(cat("left out, as ", index_name, " does not name them: ", some_of(left)));
  finish(folder);
}

void ModelReader::add_file(std::shared_ptr<ByteSource> file, const std::string& name) {
  names_.push_back(name);
  add_tensors(std::move(file), name);
}

void ModelReader::claim(const std::string& tensor, const ByteSource& file) {
  const auto [at, fresh] = file_of_.emplace(tensor, names_.size() - 1);
  if (fresh) return;
  throw refuse("duplicate",
               cat("the tensor is in two files: ", escape(names_[at->second]), " and ", names_.back()))
      .in_file(file.name())
      .in_tensor(tensor);
}

void ModelReader::check_all_there(const ModelFolder& folder, const Index& index,
                                  const std::vector<std::string>& shards) {
  std::vector<std::string> missing;
  for (const std::string& shard : shards) {
    if (!folder.has_file(shard)) missing.push_back(shard);
  }
  if (missing.empty()) return;
  const auto lost =
      std::ranges::count_if(index.shard_of, [&](const auto& item) { return has(missing, item.second); });
  throw refuse("missing_shard",
               cat(some_of(missing), missing.size() == 1 ? " is" : " are", " missing (",
                   shards.size() - missing.size(), " of ", shards.size(), " files are here); ", lost,
                   lost == 1 ? " tensor" : " tensors", " cannot be read"))
      .in_file(folder.path());
}

void ModelReader::check_index(const Index& index) {
  for (const auto& [tensor, shard] : index.shard_of) {
    const auto at = file_of_.find(tensor);
    const bool is_there = at != file_of_.end();
    if (is_there && names_[at->second] == shard) continue;
    throw refuse("missing_tensor",
                 cat("the index promises this tensor in ", escape(shard), ": expected it there, found it ",
                     is_there ? cat("in ", escape(names_[at->second])) : std::string("nowhere")))
        .in_tensor(tensor);
  }
  std::vector<std::string> extra;
  for (const Tensor& t : catalog_.tensors) {
    if (!index.shard_of.contains(t.name)) extra.push_back(t.name);
  }
  if (!extra.empty()) {
    catalog_.warnings.push_back(cat(extra.size(), extra.size() == 1 ? " tensor is" : " tensors are",
                                    " in the files but not in the index: ", some_of(extra)));
  }
}

// Files of this format are told apart by the index.
void ModelReader::finish(const ModelFolder& folder) {
  warn_of_strangers(
      folder.list(), [this](std::string_view name) { return name.ends_with(files_.ends); }, catalog_);
  add_model_config(folder, catalog_);
  add_companions(folder, catalog_);
  catalog_.path = folder.path();
  describe();
}

void ModelReader::describe() {
  const bool is_model =
      std::ranges::any_of(catalog_.objects, [](const Object& o) { return o.origin == kConfigName; });
  catalog_.description = is_model            ? "Hugging Face model"
                         : file_count() == 1 ? cat(files_.what, " file")
                                             : cat(files_.what, " folder");
  if (file_count() != 1) catalog_.description += cat(" in ", file_count(), " ", files_.what, " files");
}

Error ModelReader::refuse(std::string_view what, std::string message) const {
  return refused(cat(files_.code, ".", what), std::move(message));
}

}  // namespace uckpt::hugging_face
