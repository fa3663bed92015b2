#include "lib/formats/dcp/hugging_face.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/tiling.h"
#include "lib/formats/safetensors/header.h"
#include "lib/formats/safetensors/sharding_info.h"
#include "lib/formats/torch/sizes.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::dcp {

namespace {

constexpr std::string_view kSuffix = ".safetensors", kInfo = safetensors::kShardingKey;

constexpr size_t kMostNames = 4;

// A row for each token, and perhaps more. The other end of a model may have fewer.
constexpr std::string_view kEmbeddings[] = {"embed_tokens.weight", "wte.weight", "word_embeddings.weight",
                                            "embed_in.weight"};

struct ShardName {
  int64_t rank, file, files;
};

std::string shard_name(const ShardName& n) {
  return cat("shard-", zero_padded(n.rank, 5), "-model-", zero_padded(n.file, 5), "-of-",
             zero_padded(n.files, 5), kSuffix);
}

// Takes `head` and a number of digits off the front of `text`.
std::optional<int64_t> take_number(std::string_view& text, std::string_view head) {
  if (!text.starts_with(head)) return std::nullopt;
  text.remove_prefix(head.size());
  int64_t number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + std::min<size_t>(text.size(), 9), number);
  if (error != std::errc() || number < 1) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

std::optional<ShardName> parse_name(std::string_view name) {
  const auto rank = take_number(name, "shard-");
  const auto file = rank ? take_number(name, "-model-") : std::nullopt;
  const auto files = file ? take_number(name, "-of-") : std::nullopt;
  if (!files || name != kSuffix) return std::nullopt;
  return ShardName{*rank, *file, *files};
}

void check_complete(const InputFolder& folder, const std::vector<std::string>& names) {
  std::set<int64_t> ranks, files;
  int64_t count = 0;
  for (const std::string& name : names) {
    const ShardName n = *parse_name(name);
    if (count != 0 && n.files != count)
      throw refused("dcp.missing_files", cat("the names speak of ", count, " and of ", n.files,
                                             " files: two saves lie in one folder"))
          .in_file(folder.path());
    count = n.files;
    ranks.insert(n.rank);
    files.insert(n.file);
  }
  const auto gap = [&](const std::set<int64_t>& there, int64_t last, std::string_view what) {
    if (static_cast<int64_t>(there.size()) == last && *there.rbegin() == last) return;
    const std::vector<int64_t> sorted(there.begin(), there.end());
    throw refused("dcp.missing_files",
                  cat("shards of ", what, " ", ranges_text(sorted), " are here: expected 1-",
                      std::max(last, *there.rbegin()), ", the tensors cannot be rebuilt"))
        .in_file(folder.path())
        .hint("copy the shards of all ranks into this folder");
  };
  gap(files, count, "files");
  gap(ranks, *ranks.rbegin(), "ranks");
}

// Of each file's number, the ranks that have a shard of it.
using RanksOfFiles = std::map<int64_t, std::set<int64_t>>;

// Are all parts that lie in this file along the first dim, as torch.chunk cuts it for so many ranks?
bool is_chunked(const StoredTensor& tensor, int64_t ranks) {
  if (tensor.shape.empty() || tensor.shape[0] == 0) return true;
  const int64_t part = ceil_div(tensor.shape[0], ranks);
  return std::ranges::all_of(tensor.chunks, [&](const Chunk& c) {
    const bool rows_only = std::equal(c.sizes.begin() + 1, c.sizes.end(), tensor.shape.begin() + 1);
    return rows_only && c.offsets[0] % part == 0 &&
           c.sizes[0] == std::min(part, tensor.shape[0] - c.offsets[0]);
  });
}

// A rank may have nothing of a file; and nothing says how large tensors are, so that the last parts can be
// missing without a hole. Where the files that all ranks have are cut by rows for all of them, so are the
// others.
void check_all_ranks(const InputFolder& folder, const HuggingFaceShards& shards) {
  RanksOfFiles ranks;
  int64_t last = 0;
  for (const std::string& name : shards.stored.files) {
    const ShardName n = *parse_name(name);
    ranks[n.file].insert(n.rank);
    last = std::max(last, n.rank);
  }
  const auto file_of = [&](const StoredTensor& t) {
    return parse_name(shards.stored.files[t.chunks.item(0).file])->file;
  };
  const auto is_whole = [&](int64_t file) { return static_cast<int64_t>(ranks[file].size()) == last; };
  bool any_whole = false, by_rows = true;
  for (const StoredTensor& t : shards.stored.tensors) {
    if (t.chunks.empty() || !is_whole(file_of(t))) continue;
    any_whole |= t.chunks.size() > 1;
    by_rows &= t.chunks.size() == 1 || is_chunked(t, last);
  }
  for (const StoredTensor& t : shards.stored.tensors) {
    if (t.chunks.empty() || is_whole(file_of(t))) continue;
    bool has_hole = false;
    try {
      check_tiling(t.shape, t.chunks);
    } catch (const Error& e) {
      has_hole = e.code() == "dcp.hole";
    }
    if (!has_hole && (!any_whole || !by_rows || t.chunks.size() == 1 || is_chunked(t, last))) continue;
    const int64_t file = file_of(t);
    const ShardName sample = *parse_name(shards.stored.files[t.chunks.item(0).file]);
    std::vector<std::string> names;
    size_t count = 0;
    for (int64_t r = 1; r <= last; ++r)
      if (!ranks[file].contains(r) && ++count <= kMostNames)
        names.push_back(shard_name({r, file, sample.files}));
    throw refused("dcp.missing_files", cat(some_of(names, count), count == 1 ? " is" : " are",
                                           " missing: the parts of the tensor that are here are not all"))
        .in_file(folder.path())
        .in_tensor(t.key)
        .hint("copy the shards of all ranks into this folder");
  }
}

}  // namespace

bool are_shards(const std::vector<std::string>& entries) {
  bool any = false;
  for (const std::string& name : entries) {
    if (!name.ends_with(kSuffix)) continue;
    if (!parse_name(name)) return false;
    any = true;
  }
  return any;
}

HuggingFaceShards read_shards(const InputFolder& folder, const std::vector<std::string>& entries) {
  HuggingFaceShards out;
  ItemForms forms;
  for (const std::string& name : entries)
    if (parse_name(name)) out.stored.files.push_back(name);
  check_complete(folder, out.stored.files);
  std::unordered_map<std::string, size_t> known;
  for (uint32_t f = 0; f < out.stored.files.size(); ++f) {
    const std::shared_ptr<InputFile> file = folder.open(out.stored.files[f]);
    out.files.push_back(file);
    try {
      const safetensors::Header header = safetensors::read_header(*file);
      if (header.metadata_value(kInfo) == nullptr)
        throw refused("dcp.sharding_info", cat("the file's metadata has no ", kInfo,
                                               ": nothing tells where its tensors' boxes lie"));
      const auto offsets = safetensors::saved_offsets(header);
      for (const safetensors::Entry& entry : header.entries) {
        const auto [at, fresh] = known.try_emplace(entry.name, out.stored.tensors.size());
        if (fresh) {
          out.stored.tensors.push_back(
              {entry.name, entry.dtype, Shape(entry.shape.size(), 0), "", {}, {}, 0});
          out.items.emplace_back();
        }
        StoredTensor& tensor = out.stored.tensors[at->second];
        const auto begin = offsets.find(entry.name);
        if (begin == offsets.end() || begin->second.size() != entry.shape.size())
          throw refused("dcp.sharding_info",
                        cat("expected an offset for each of its ", entry.shape.size(), " dims in ", kInfo))
              .in_tensor(entry.name);
        if (entry.dtype != tensor.dtype || entry.shape.size() != tensor.shape.size())
          throw refused("dcp.dtype", cat("it is ", name_of(tensor.dtype), " of ", tensor.shape.size(),
                                         " dims in an earlier shard, ", name_of(entry.dtype), " of ",
                                         entry.shape.size(), " here"))
              .in_tensor(entry.name);
        for (size_t d = 0; d < entry.shape.size(); ++d) {
          const auto end = checked_add(begin->second[d], entry.shape[d]);
          if (!end) throw refused("dcp.size", "a box ends beyond 64 bits").in_tensor(entry.name);
          tensor.shape[d] = std::max(tensor.shape[d], *end);
        }
        if (numel_of(entry.shape) == 0) {
          ++tensor.empty_chunks;
          continue;
        }
        tensor.chunks.push_back(
            {begin->second, entry.shape, {f, header.data_at + entry.begin, entry.end - entry.begin}, ""});
        ItemTensor& item = out.items[at->second].emplace_back();
        item.offset = header.data_at + entry.begin;
        item.form = forms.one_of({torch::row_major(entry.shape)});
      }
    } catch (Error& e) {
      throw e.in_file(file->name());
    }
  }
  for (const StoredTensor& tensor : out.stored.tensors)
    if (!checked_product(tensor.shape))
      throw refused("dcp.size", cat("the elements of a tensor ", shape_text(tensor.shape), " leave 64 bits"))
          .in_file(folder.path())
          .in_tensor(tensor.key);
  check_all_ranks(folder, out);
  return out;
}

std::optional<Error> lost_rows(const Stored& stored, const Arguments& arguments) {
  auto rows = arguments.find("vocab_size");
  if (rows == arguments.end()) rows = arguments.find("text_config.vocab_size");
  std::vector<const StoredTensor*> embeddings;
  for (const StoredTensor& t : stored.tensors) {
    const auto is_its_name = [&](std::string_view name) {
      return t.key == name || t.key.ends_with(cat(".", name));
    };
    if (t.shape.size() == 2 && std::ranges::any_of(kEmbeddings, is_its_name)) embeddings.push_back(&t);
  }
  // Of several nothing tells whose rows those are.
  if (rows == arguments.end() || embeddings.size() != 1) return std::nullopt;
  const StoredTensor& t = *embeddings.front();
  if (t.shape[0] >= rows->second) return std::nullopt;
  return refused("dcp.missing_files", cat("its shards end after ", t.shape[0], " rows, and config.json says ",
                                          rows->second, " (vocab_size): those of further ranks are missing"))
      .in_tensor(t.key)
      .hint("copy the shards of all ranks into this folder");
}

}  // namespace uckpt::dcp
