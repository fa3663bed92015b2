#include "lib/formats/dcp/merge.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

void Merger::add(Stored further) {
  const auto shift = static_cast<uint32_t>(stored_.files.size());
  std::ranges::move(further.files, std::back_inserter(stored_.files));
  for (StoredTensor& t : further.tensors) {
    for (size_t c = 0; c < t.chunks.size(); ++c) t.chunks.item(c).file += shift;
    add(std::move(t));
  }
  for (StoredBytes& b : further.bytes) {
    b.item.file += shift;
    add(std::move(b));
  }
  for (EmptyItem& e : further.empties) {
    e.item.file += shift;
    stored_.empties.push_back(std::move(e));
  }
  stored_.paths.merge(further.paths);
  ++ranks_;
}

void Merger::add(StoredTensor tensor) {
  const auto [at, fresh] = tensors_.try_emplace(tensor.key, stored_.tensors.size());
  if (fresh) {
    stored_.tensors.push_back(std::move(tensor));
    return;
  }
  StoredTensor& into = stored_.tensors[at->second];
  if (into.dtype != tensor.dtype || into.shape != tensor.shape)
    throw refused("dcp.ranks_differ",
                  cat("the ranks' metadata differ: ", name_of(into.dtype), " ", shape_text(into.shape),
                      " and ", name_of(tensor.dtype), " ", shape_text(tensor.shape)))
        .in_tensor(into.key);
  const auto [found, is_second] = boxes_.try_emplace(at->second);
  std::set<Box>& boxes = found->second;
  if (is_second)
    for (const Chunk& c : into.chunks) boxes.emplace(c.offsets, c.sizes);
  std::vector<Box> further;
  for (const Chunk& c : tensor.chunks) {
    Box box(c.offsets, c.sizes);
    (boxes.contains(box) ? into.replicas : into.chunks).push_back(c);
    further.push_back(std::move(box));
  }
  boxes.insert(further.begin(), further.end());
  into.empty_chunks += tensor.empty_chunks;
  if (into.refusal.empty()) into.refusal = tensor.refusal;
}

void Merger::add(StoredBytes object) {
  const auto [at, fresh] = objects_.try_emplace(object.key, stored_.bytes.size());
  if (!fresh) {
    object.same_key_as = static_cast<uint32_t>(at->second);
    object.key += cat("@", ranks_);
  }
  stored_.bytes.push_back(std::move(object));
}

void drop_same_objects(Stored& stored, const DataFiles& files) {
  constexpr int64_t kCompared = 16 << 20;
  std::vector<ItemRange> items;
  for (const StoredBytes& b : stored.bytes) items.push_back(b.item);
  const auto bytes_at = [&](const ItemRange& r) { return files.at(r.file)->read_range(r.offset, r.length); };
  std::erase_if(stored.bytes, [&](const StoredBytes& b) {
    if (!b.same_key_as) return false;
    const ItemRange& first = items[*b.same_key_as];
    return first.length == b.item.length && first.length <= kCompared && bytes_at(first) == bytes_at(b.item);
  });
}

}  // namespace uckpt::dcp
