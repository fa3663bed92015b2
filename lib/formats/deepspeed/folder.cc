#include "lib/formats/deepspeed/folder.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/file_path.h"

namespace uckpt::deepspeed {

namespace {

constexpr int64_t kLongestTag = 4096;

// Reads a name from the left.
class NameCursor {
 public:
  explicit NameCursor(std::string_view rest) : rest_(rest) {}
  bool eat(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool number(int64_t& out) {
    size_t digits = 0;
    while (digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9') ++digits;
    if (digits == 0 || digits > 9) return false;
    std::from_chars(rest_.data(), rest_.data() + digits, out);
    rest_.remove_prefix(digits);
    return true;
  }
  bool ends_with(std::string_view tail) const { return rest_ == tail; }

 private:
  std::string_view rest_;
};

constexpr std::string_view kModelTail = "_model_states.pt", kOptimTail = "_optim_states.pt",
                           kOldOptimTail = "optim_states.pt";

std::optional<RankFile> parse_zero_name(std::string_view name) {
  NameCursor at(name);
  RankFile f;
  if (!at.eat("bf16_")) at.eat("fp16_");
  if (!at.eat("zero_pp_rank_") || !at.number(f.data) || !at.eat("_mp_rank_") || !at.number(f.model)) {
    return std::nullopt;
  }
  if (at.ends_with(kModelTail)) {
    f.role = Role::kZeroModel;
  } else if (at.ends_with(kOptimTail) || at.ends_with(kOldOptimTail)) {
    f.role = Role::kOptimizer;
  } else {
    return std::nullopt;
  }
  return f;
}

// layer_03-model_00-model_states.pt; without a model axis in the topology layer_03-model_states.pt.
std::optional<RankFile> parse_layer_name(std::string_view name) {
  NameCursor at(name);
  RankFile f;
  f.role = Role::kLayer;
  if (!at.eat("layer_") || !at.number(f.layer) || !at.eat("-")) return std::nullopt;
  if (at.ends_with("model_states.pt")) return f;
  if (at.eat("model_") && at.number(f.model) && at.ends_with("-model_states.pt")) return f;
  return std::nullopt;
}

std::optional<RankFile> parse_expert_name(std::string_view name) {
  NameCursor at(name);
  RankFile f;
  f.role = Role::kExpert;
  if (at.eat("layer_") && !(at.number(f.layer) && at.eat("_"))) return std::nullopt;
  if (!at.eat("expert_") || !at.number(f.expert) || !at.eat("_mp_rank_") || !at.number(f.model))
    return std::nullopt;
  return at.ends_with(kModelTail) ? std::optional(f) : std::nullopt;
}

std::optional<RankFile> parse_plain_name(std::string_view name) {
  NameCursor at(name);
  RankFile f;
  const bool expert = at.eat("expp_rank_");
  f.role = expert ? Role::kExpertOptimizer : Role::kModel;
  if (expert && !(at.number(f.data) && at.eat("_"))) return std::nullopt;
  if (!at.eat("mp_rank_") || !at.number(f.model)) return std::nullopt;
  return at.ends_with(expert ? kOptimTail : kModelTail) ? std::optional(f) : std::nullopt;
}

bool is_tag_listing(const std::vector<std::string>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const auto& e) { return parse_name(e).has_value(); });
}

// Without the optimizer's state it is a damaged one: the folders of parameters tell it.
bool is_universal(const InputFolder& folder) {
  if (!folder.has_folder("zero")) return false;
  if (folder.has_file("zero/optimizer_state.pt")) return true;
  return std::ranges::any_of(folder.list("zero"), [&](const std::string& entry) {
    return entry.ends_with('/') && folder.has_file(cat("zero/", entry, "fp32.pt"));
  });
}

bool is_tag(const InputFolder& folder) { return is_universal(folder) || is_tag_listing(folder.list()); }

// A tag can be a path: `save_checkpoint(root, tag="run1/step4")` makes the folders.
bool has_plain_parts(std::string_view tag) {
  for (size_t start = 0; start <= tag.size();) {
    const size_t end = std::min(tag.find('/', start), tag.size());
    const std::string_view part = tag.substr(start, end - start);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != part.npos) return false;
    start = end + 1;
  }
  return true;
}

// The folder of a tag that a file of the root names; nothing where there is none. Throws refused
// `name.escapes` where a link leads out of the root.
std::optional<InputFolder> folder_of_tag(const InputFolder& root, const std::string& tag) {
  if (!has_plain_parts(tag) || !root.has_folder(tag)) return std::nullopt;
  root.list(tag);  // follows no link out
  return InputFolder(root.join(tag));
}

// The text of `latest`, if there is one.
std::optional<std::string> read_pointer(const InputFolder& root, std::string_view file) {
  if (!root.has_file(file)) return std::nullopt;
  const auto source = root.open(file);
  if (source->size() > kLongestTag) {
    throw refused("deepspeed.no_tag", cat("expected the name of a folder, found ", source->size(), " bytes"))
        .in_file(root.join(file));
  }
  const Bytes bytes = source->read_range(0, source->size());
  std::string text(bytes.begin(), bytes.end());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

std::vector<std::string> tags_of(const InputFolder& root) {
  std::vector<std::string> tags;
  for (std::string entry : root.list()) {
    if (entry.empty() || entry.back() != '/') continue;
    entry.pop_back();
    if (is_tag(InputFolder(root.join(entry)))) tags.push_back(std::move(entry));
  }
  return tags;
}

std::string list_of(const std::vector<std::string>& tags) {
  constexpr size_t kShown = 5;
  std::string out;
  for (size_t i = 0; i < tags.size() && i < kShown; ++i) out += cat(i ? ", " : "", escape(tags[i], 60));
  return tags.size() > kShown ? out + ", …" : out;
}

// The folder a file of a checkpoint stands for: its tag folder, or the root for `latest`.
std::string folder_of_file(const std::string& path) {
  const std::string folder = parent_of(path);
  const std::string_view base = base_of(path);
  if (base == "optimizer_state.pt" && base_of(folder) == "zero") return parent_of(folder);
  if (!parse_name(base) && base_of(parent_of(folder)) == "zero") return parent_of(parent_of(folder));
  return folder;
}

Folder open_tag(const InputFolder& root, const std::string& tag, std::string_view pointer) {
  const auto found = folder_of_tag(root, tag);
  if (!found) {
    const std::vector<std::string> tags = tags_of(root);
    Error e = refused("deepspeed.no_tag",
                      cat("it names the checkpoint \"", escape(tag), "\", and no such folder is here"));
    if (!tags.empty()) e.hint(cat("name the folder of a checkpoint itself; here are ", list_of(tags)));
    throw e.in_file(root.join(pointer));
  }
  Folder folder(found->path());
  folder.tag = tag;
  return folder;
}

Folder choose(const InputFolder& here) {
  if (is_tag(here)) return Folder(here.path());
  for (const std::string_view pointer : {"latest", "latest_universal"}) {
    if (const auto tag = read_pointer(here, pointer)) return open_tag(here, *tag, pointer);
  }
  const std::vector<std::string> tags = tags_of(here);
  if (tags.size() == 1) {
    Folder folder(here.join(tags[0]));
    folder.note = cat("there is no `latest`; ", escape(tags[0]), " is the only checkpoint here");
    return folder;
  }
  throw refused(
      "deepspeed.no_latest",
      tags.empty() ? std::string("expected a DeepSpeed checkpoint, found no rank files")
                   : cat("there is no `latest`, and ", tags.size(), " checkpoints are here: ", list_of(tags)))
      .in_file(here.path())
      .hint("name the folder of one checkpoint");
}

}  // namespace

std::optional<RankFile> parse_name(std::string_view name) {
  std::optional<RankFile> file = parse_zero_name(name);
  if (!file) file = parse_layer_name(name);
  if (!file) file = parse_expert_name(name);
  if (!file) file = parse_plain_name(name);
  if (file) file->name = name;
  return file;
}

std::vector<RankFile>& Folder::list(Role role) {
  switch (role) {
    case Role::kModel:
      return models;
    case Role::kZeroModel:
      return zero_models;
    case Role::kOptimizer:
      return optimizers;
    case Role::kLayer:
      return layers;
    case Role::kExpert:
      return experts;
    case Role::kExpertOptimizer:
      break;
  }
  return expert_optimizers;
}

bool looks_like_deepspeed(const Target& target) {
  try {
    if (target.file) {
      if (parse_name(base_of(target.path))) return true;
      const InputFolder folder(folder_of_file(target.path));
      if (base_of(target.path).starts_with("latest")) {
        const auto tag = read_pointer(folder, base_of(target.path));
        const auto found = tag ? folder_of_tag(folder, *tag) : std::nullopt;
        return found && is_tag(*found);
      }
      return folder.path() != parent_of(target.path) && is_universal(folder);
    }
    if (!target.folder) return false;
    if (is_tag_listing(target.entries) || is_universal(*target.folder)) return true;
    for (const std::string_view pointer : {"latest", "latest_universal"}) {
      const auto tag = read_pointer(*target.folder, pointer);
      if (const auto found = tag ? folder_of_tag(*target.folder, *tag) : std::nullopt) return is_tag(*found);
    }
    return !tags_of(*target.folder).empty();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;  // of the system: no answer at all
    return e.code() == "name.escapes";           // what reads it says so
  }
}

Folder find_folder(const Target& target) {
  const InputFolder here(target.file ? folder_of_file(target.path) : target.path);
  Folder folder = choose(here);
  if (folder.tag.empty()) folder.tag = base_of(folder.files.path());
  folder.universal = is_universal(folder.files);
  for (const std::string& entry : folder.files.list()) {
    if (auto file = parse_name(entry)) folder.list(file->role).push_back(std::move(*file));
  }
  for (auto* list : {&folder.models, &folder.zero_models, &folder.optimizers, &folder.layers, &folder.experts,
                     &folder.expert_optimizers}) {
    std::sort(list->begin(), list->end(), [](const RankFile& a, const RankFile& b) {
      return std::tie(a.model, a.data, a.layer, a.expert, a.name) <
             std::tie(b.model, b.data, b.layer, b.expert, b.name);
    });
  }
  return folder;
}

}  // namespace uckpt::deepspeed
