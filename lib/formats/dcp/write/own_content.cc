#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/dcp/merge.h"
#include "lib/formats/dcp/metadata.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/saved.h"
#include "lib/formats/dcp/write/content.h"
#include "lib/io/input.h"
#include "lib/pickle/machine.h"

namespace uckpt::dcp {

namespace {

using pickle::Value;

constexpr std::string_view kMetadataFile = ".metadata";

Bytes bytes_of(const Catalog& catalog, const Object& object) {
  return catalog.files[object.file]->read_range(object.offset, object.size);
}

// A distributed checkpoint's `.metadata`, or those that its ranks kept; what else it has are objects under
// their keys.
class OwnContent {
 public:
  OwnContent(const Catalog& catalog, const WriteRequest& request, std::vector<std::string>& notes)
      : catalog_(catalog), request_(request), notes_(notes) {}

  std::optional<Content> make() {
    for (const Object& object : catalog_.objects) objects_.emplace(object.origin, &object);
    if (!read_stored()) return std::nullopt;
    const auto read_list = [this](const std::string& key) { return list_at(key); };
    std::vector<std::string> said_when_read;
    const auto read_number = [this](const StoredBytes& object) {
      const pickle::Document* document = document_at(object.key);
      return document ? deepspeed::scalar_of(document->root()) : std::nullopt;
    };
    const Naming naming = name_all(stored_, read_list, read_number, said_when_read);
    for (const StateNumber& n : naming.numbers) number_at_.emplace(stored_.bytes[n.object].key, n.name);
    wanted_ = requested_names(catalog_, request_);
    taken_.assign(request_.tensors.size(), false);
    content_.has_paths = !stored_.paths.empty();
    std::set<int64_t> writers;
    for (const std::string& file : stored_.files) writers.insert(writer_of(file));
    writers.erase(-1);
    content_.ranks = static_cast<int64_t>(writers.size());
    for (size_t t = 0; t < stored_.tensors.size(); ++t) add_tensor(stored_.tensors[t], naming.tensors[t]);
    for (const StoredBytes& bytes : stored_.bytes) add_object(bytes);
    for (const auto& [name, index] : wanted_)
      if (!taken_[index]) {
        notes_.push_back(cat("its own keys have no tensor ", escape(name),
                             ": all are written under the keys that torch makes of a model"));
        return std::nullopt;
      }
    tell();
    return std::move(content_);
  }

 private:
  bool read_stored() {
    Merger merger;
    const auto add = [&](const std::string& name) {
      const auto at = objects_.find(name);
      if (at == objects_.end() || at->second->size == 0) return false;
      const MemorySource source(name, bytes_of(catalog_, *at->second));
      merger.add(read_metadata(source, {}, false).stored);
      return true;
    };
    bool found = add(std::string(kMetadataFile));
    for (size_t rank = 0; add(cat("__", rank, kMetadataFile)); ++rank) found = true;
    for (const Object& object : catalog_.objects)
      if (is_of_part(object.origin)) found |= add(object.origin);
    if (found) stored_ = std::move(merger).finish();
    return found;
  }

  KeyPath path_of(const std::string& key) const {
    const auto at = stored_.paths.find(key);
    return at == stored_.paths.end() || at->second.empty() ? KeyPath{{key, false}} : at->second;
  }

  // The tree of an object; null if it has none.
  const pickle::Document* document_at(const std::string& key) {
    const auto [known, is_new] = documents_.try_emplace(key, nullptr);
    if (!is_new) return known->second;
    const auto at = objects_.find(key);
    if (at == objects_.end() || at->second->size == 0) return nullptr;
    try {
      content_.documents.push_back(pickle::parse_whole(bytes_of(catalog_, *at->second), {}));
    } catch (Error& e) {
      throw e.in_member(key).in_file(catalog_.path);
    }
    return known->second = content_.documents.back().get();
  }

  std::optional<TextList> list_at(const std::string& key) {
    const pickle::Document* document = document_at(key);
    return document ? texts_in(document->root()) : std::nullopt;
  }

  void add_tensor(const StoredTensor& stored, const TensorName& name) {
    const auto at = wanted_.find(cat(name.state, "/", name.name));
    if (at == wanted_.end()) return drop(stored.key);
    taken_[at->second] = true;
    const bool was_cut = stored.chunks.size() + stored.empty_chunks > 1;
    content_.tensors.push_back({stored.key, path_of(stored.key), at->second,
                                was_cut || (name.state != state::kOther && name.state != state::kBuffer)});
  }

  void drop(const std::string& key) {
    if (dropped_++ == 0) first_dropped_ = key;
    content_.dropped.push_back(path_of(key));
  }

  void add_object(const StoredBytes& stored) {
    if (const auto number = number_at_.find(stored.key); number != number_at_.end()) {
      const auto at = wanted_.find(cat(number->second.state, "/", number->second.name));
      if (at == wanted_.end()) return drop(stored.key);
      taken_[at->second] = true;  // it is written as it was, an object
    }
    const auto at = objects_.find(stored.key);
    if (stored.same_key_as) {
      if (at != objects_.end()) ++further_;
      return;
    }
    if (at == objects_.end() || at->second->size == 0) {
      lost_.push_back(stored.key);
      return;
    }
    ContentObject& out = content_.objects.emplace_back(ContentObject{stored.key, path_of(stored.key)});
    if (at->second->size == stored.item.length) {
      out.raw = bytes_of(catalog_, *at->second);
      return;
    }
    const pickle::Document* document = document_at(stored.key);
    out.copied = document->root();
    content_.add_leaves(catalog_, *document, cat(stored.key, "."), wanted_, Arrays::kArePlain, taken_);
  }

  void tell() {
    if (dropped_ > 0)
      notes_.push_back(cat(dropped_, dropped_ == 1 ? " tensor is" : " tensors are",
                           " left out, since not selected: ", escape(first_dropped_),
                           dropped_ == 1 ? "" : ", …"));
    if (further_ > 0)
      notes_.push_back(cat("left out: ", further_,
                           further_ == 1 ? " object that a further rank" : " objects that further ranks",
                           " saved under a key that the first one has, too"));
    if (!lost_.empty())
      notes_.push_back(cat("left out, since the input does not keep their bytes: ", lost_.size(),
                           lost_.size() == 1 ? " object, " : " objects, ", escape(lost_.front()),
                           lost_.size() == 1 ? "" : ", …"));
  }

  const Catalog& catalog_;
  const WriteRequest& request_;
  std::vector<std::string>& notes_;
  std::unordered_map<std::string, const Object*> objects_;
  std::unordered_map<std::string, const pickle::Document*> documents_;
  Stored stored_;
  Content::Names wanted_;
  std::unordered_map<std::string, TensorName> number_at_;  // of objects that are numbers of the optimizer
  std::vector<bool> taken_;
  Content content_;
  size_t dropped_ = 0, further_ = 0;
  std::string first_dropped_;
  std::vector<std::string> lost_;
};

}  // namespace

bool has_own_keys(const Catalog& catalog) {
  return std::ranges::any_of(catalog.objects, [](const Object& o) {
    return o.size > 0 &&
           (o.origin == kMetadataFile || o.origin == cat("__0", kMetadataFile) || is_of_part(o.origin));
  });
}

std::optional<Content> own_content(const Catalog& catalog, const WriteRequest& request,
                                   std::vector<std::string>& notes) {
  return OwnContent(catalog, request, notes).make();
}

}  // namespace uckpt::dcp
