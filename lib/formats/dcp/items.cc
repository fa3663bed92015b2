#include "lib/formats/dcp/items.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <iterator>
#include <mutex>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/item_source.h"
#include "lib/formats/safetensors/header.h"
#include "lib/formats/torch/sizes.h"

namespace uckpt::dcp {

namespace {

// A chunk and where it stands in the list of tensors.
struct Job {
  size_t tensor, chunk;
};

bool is_archive(ByteSpan head) { return head.size() >= 4 && load_le<uint32_t>(head.data()) == 0x04034b50; }

bool has_archive_at(const ByteSource& file, int64_t offset) {
  return is_archive(file.read_range(offset, std::min<int64_t>(4, file.size() - offset)));
}

Error in_item(Error e, const std::string& key, const ItemRange& item, const ByteSource& file) {
  return e.in_file(file.name()).in_member(cat("item at byte ", item.offset)).in_tensor(key);
}

Error wrong_type(DType expected, DType found) {
  return refused("dcp.dtype",
                 cat("`.metadata` says ", name_of(expected), ", the item holds ", name_of(found)));
}

Error wrong_shape(const Shape& expected, const Shape& found) {
  return refused("dcp.shape", cat("`.metadata` says a chunk ", shape_text(expected), ", the item holds ",
                                  shape_text(found)));
}

// The safetensors image at the end of a data file, if it has one: all its tensors are said to begin where the
// image begins. Each entry is taken once, since a writer that was given two chunks of one tensor keeps only
// the last.
class Images {
 public:
  void add(const ByteSource& file, const ItemRange& item) {
    const auto [at, fresh] = images_.try_emplace(item.file);
    if (!fresh && at->second.offset == item.offset) return;
    if (!fresh)
      throw refused("dcp.shared_bytes",
                    cat("expected one safetensors image in a file, found others at bytes ", at->second.offset,
                        " and ", item.offset));
    at->second.offset = item.offset;
    const ItemSource source(file, item.offset, file.size() - item.offset);
    at->second.header = safetensors::read_header(source);
    for (size_t i = 0; i < at->second.header.entries.size(); ++i)
      at->second.by_name.emplace(at->second.header.entries[i].name, i);
  }

  // Where the archives of a file must end.
  int64_t limit(uint32_t file) const {
    const auto at = images_.find(file);
    return at == images_.end() ? INT64_MAX : at->second.offset;
  }

  ItemTensor take(const StoredTensor& tensor, const Chunk& chunk, ItemForms& forms) {
    Image& image = images_.at(chunk.item.file);
    const auto at = image.by_name.find(tensor.key);
    if (at == image.by_name.end())
      throw refused("dcp.lost_chunk", "the safetensors image that should hold the chunk has no such tensor");
    const safetensors::Entry& entry = image.header.entries[at->second];
    if (entry.dtype != tensor.dtype) throw wrong_type(tensor.dtype, entry.dtype);
    if (entry.shape != chunk.sizes) throw wrong_shape(chunk.sizes, entry.shape);
    if (!image.taken.insert(at->second).second)
      throw refused("dcp.lost_chunk",
                    "one rank saved two chunks of it to one safetensors image, which keeps "
                    "only the last")
          .hint("save it again without SerializationFormat.SAFETENSORS");
    ItemTensor out;
    out.offset = chunk.item.offset + image.header.data_at + entry.begin;
    out.form = forms.one_of({torch::row_major(entry.shape)});
    return out;
  }

 private:
  struct Image {
    int64_t offset = 0;
    safetensors::Header header;
    std::map<std::string_view, size_t> by_name;
    std::set<size_t> taken;
  };
  std::map<uint32_t, Image> images_;
};

std::shared_ptr<const ItemForm> form_with_trouble(std::string refusal, std::optional<Error> danger = {}) {
  ItemForm form;
  form.trouble = std::make_shared<const ItemTrouble>(ItemTrouble{std::move(refusal), std::move(danger)});
  return std::make_shared<const ItemForm>(std::move(form));
}

// The classes that were met, by threads at once.
class Globals {
 public:
  void add(const std::map<std::string, GlobalClass>& met) {
    const std::lock_guard lock(mutex_);
    merge_globals(all_, met);
  }
  std::map<std::string, GlobalClass> take() { return std::move(all_); }

 private:
  std::mutex mutex_;
  std::map<std::string, GlobalClass> all_;
};

ItemTensor open_archive(const std::shared_ptr<ByteSource>& file, const StoredTensor& tensor,
                        const Chunk& chunk, const OpenOptions& options, Globals& globals, ItemForms& forms) {
  const auto source = std::make_shared<ItemSource>(*file, chunk.item.offset, chunk.item.length);
  const auto archive = torch::TorchFile::open(source, options.limits);
  ItemTensor out;
  globals.add(archive->globals());
  const auto info = archive->tensor(archive->root());
  if (const auto& danger = archive->refusal()) {
    out.form = form_with_trouble("its item is no plain tensor", Error(*danger).in_tensor(tensor.key));
    return out;
  }
  if (!info) throw refused("dcp.item", "expected one tensor in the item, found another object");
  if (info->shape != chunk.sizes) throw wrong_shape(chunk.sizes, info->shape);
  if (!info->refusal.empty()) {
    out.form = form_with_trouble(info->refusal);
    return out;
  }
  if (info->dtype != tensor.dtype) throw wrong_type(tensor.dtype, info->dtype);
  out.offset = chunk.item.offset + info->offset;
  ItemForm form{info->stride, info->flags};
  if (info->record != kNoRecord) {
    const torch::FileRecord& record = archive->records()[info->record];
    out.record_crc = record.crc.value_or(0);
    form.record_name = record.name;
    form.record_before = info->offset - record.offset;
    form.record_size = record.size;
  }
  out.form = forms.one_of(std::move(form));
  return out;
}

// An archive and the key that it is said to be of.
struct Claim {
  ItemRange item;
  const std::string* key;
};

// Writers put items back to back. Were items allowed to overlap, a small file could spell a huge tensor, or
// one archive be read a million times.
void check_disjoint(const DataFiles& files, std::vector<Claim> claims, const Images& images) {
  std::ranges::sort(claims, [](const Claim& a, const Claim& b) {
    return std::pair(a.item.file, a.item.offset) < std::pair(b.item.file, b.item.offset);
  });
  for (size_t i = 0; i < claims.size(); ++i) {
    const ItemRange& item = claims[i].item;
    const bool is_last = i + 1 == claims.size() || claims[i + 1].item.file != item.file;
    const int64_t end = is_last ? images.limit(item.file) : claims[i + 1].item.offset;
    if (item.offset + item.length <= end) continue;
    throw in_item(
        refused("dcp.shared_bytes", cat("two items claim the same bytes: expected this one to end at "
                                        "byte ",
                                        end, ", where another begins, found ", item.offset + item.length)),
        *claims[i].key, item, *files.at(item.file));
  }
}

}  // namespace

std::shared_ptr<const ItemForm> ItemForms::one_of(ItemForm form) {
  Key key(form.stride, form.flags, form.record_name, form.record_before, form.record_size);
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const ItemForm>& known = forms_[std::move(key)];
  if (!known) known = std::make_shared<const ItemForm>(std::move(form));
  return known;
}

DataFiles::DataFiles(const InputFolder& folder, const Stored& stored) {
  std::vector<std::string> missing;
  for (const std::string& name : stored.files) {
    if (!folder.has_file(name)) {
      missing.push_back(name);
      files_.push_back(nullptr);
    } else {
      files_.push_back(folder.open(name));
    }
  }
  if (missing.empty()) return;
  size_t lost = 0;
  for (const StoredTensor& t : stored.tensors)
    lost += std::ranges::any_of(t.chunks, [&](const Chunk& c) { return !files_[c.item.file]; });
  std::ranges::sort(missing, natural_less);
  throw refused("dcp.missing_files", cat(some_of(missing), missing.size() == 1 ? " is" : " are", " missing (",
                                         stored.files.size() - missing.size(), " of ", stored.files.size(),
                                         " data files are here): ", lost, lost == 1 ? " tensor" : " tensors",
                                         " cannot be rebuilt"))
      .hint("a rank's files may lie on that node's own disk: copy all of them into this folder");
}

void DataFiles::check_range(const ItemRange& item) const {
  const ByteSource& file = *files_[item.file];
  if (range_inside(item.offset, item.length, file.size()) && item.offset < file.size()) return;
  throw refused("dcp.range", cat("an item of ", item.length, " bytes at byte ", item.offset,
                                 ": expected it inside the file, which has ", file.size(), " bytes"))
      .in_file(file.name())
      .hint("the file was cut short, or it belongs to another save");
}

OpenedChunks open_chunks(const DataFiles& files, const Stored& stored, const OpenOptions& options) {
  OpenedChunks opened;
  std::vector<std::vector<ItemTensor>>& out = opened.items;
  out.resize(stored.tensors.size());
  std::vector<Job> jobs;
  const auto check_range = [&](const ItemRange& item, const std::string& key) {
    try {
      files.check_range(item);
    } catch (Error& e) {
      throw e.in_tensor(key);
    }
  };
  for (const StoredBytes& b : stored.bytes) check_range(b.item, b.key);
  for (const EmptyItem& e : stored.empties) check_range(e.item, e.key);
  for (size_t t = 0; t < stored.tensors.size(); ++t) {
    const StoredTensor& tensor = stored.tensors[t];
    out[t].resize(tensor.item_count());
    for (size_t c = 0; c < tensor.item_count(); ++c) {
      const Chunk& chunk = tensor.item(c);
      check_range(chunk.item, tensor.key);
      if (!chunk.transforms.empty())
        out[t][c].form =
            form_with_trouble(cat("its bytes went through ", chunk.transforms, ", which is not read"));
      else if (tensor.refusal.empty())
        jobs.push_back({t, c});
    }
  }
  const auto tensor_of = [&](const Job& job) -> const StoredTensor& { return stored.tensors[job.tensor]; };
  const auto item_of = [&](const Job& job) -> const ItemRange& {
    return tensor_of(job).item_range(job.chunk);
  };
  const auto guarded = [&](const Job& job, const auto& step) {
    try {
      step();
    } catch (Error& e) {
      const ItemRange& item = item_of(job);
      throw in_item(e, tensor_of(job).key, item, *files.at(item.file));
    }
  };
  std::vector<uint8_t> is_image(jobs.size(), 0);
  tbb::parallel_for(size_t{0}, jobs.size(), [&](size_t i) {
    const ItemRange& item = item_of(jobs[i]);
    is_image[i] = !has_archive_at(*files.at(item.file), item.offset);
  });
  Images images;
  for (size_t i = 0; i < jobs.size(); ++i)
    if (is_image[i])
      guarded(jobs[i], [&] { images.add(*files.at(item_of(jobs[i]).file), item_of(jobs[i])); });
  std::vector<Claim> claims;
  for (size_t i = 0; i < jobs.size(); ++i)
    if (!is_image[i]) claims.push_back({item_of(jobs[i]), &tensor_of(jobs[i]).key});
  for (const StoredBytes& b : stored.bytes) claims.push_back({b.item, &b.key});
  check_disjoint(files, std::move(claims), images);
  Globals globals;
  ItemForms forms;
  std::mutex failing;
  std::map<size_t, Error> errors;  // by job
  tbb::parallel_for(size_t{0}, jobs.size(), [&](size_t i) {
    if (is_image[i]) return;
    const Job& job = jobs[i];
    try {
      out[job.tensor][job.chunk] = open_archive(files.at(item_of(job).file), tensor_of(job),
                                                tensor_of(job).item(job.chunk), options, globals, forms);
    } catch (const Error& e) {
      const std::lock_guard lock(failing);
      errors.emplace(i, e);
      if (errors.size() > 1) errors.erase(std::prev(errors.end()));  // the first one is told
    }
  });
  for (size_t i = 0; i < jobs.size(); ++i) {
    guarded(jobs[i], [&] {
      if (const auto failed = errors.find(i); failed != errors.end()) throw Error(failed->second);
      if (is_image[i])
        out[jobs[i].tensor][jobs[i].chunk] =
            images.take(tensor_of(jobs[i]), tensor_of(jobs[i]).item(jobs[i].chunk), forms);
    });
  }
  opened.globals = globals.take();
  return opened;
}

ItemObject open_object(const DataFiles& files, const StoredBytes& item, const OpenOptions& options) try {
  const ByteSource& file = *files.at(item.item.file);
  ItemObject out;
  out.source = std::make_shared<ItemSource>(file, item.item.offset, item.item.length);
  if (item.transforms.empty() && has_archive_at(file, item.item.offset))
    out.file = torch::TorchFile::open(out.source, options.limits);
  return out;
} catch (Error& e) {
  throw e.in_file(files.at(item.item.file)->name())
      .in_member(cat("item at byte ", item.item.offset))
      .in_tensor(item.key);
}

}  // namespace uckpt::dcp
