#include "lib/formats/megatron/folder.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/strict_json.h"

namespace uckpt::megatron {

namespace {

constexpr int64_t kMaxTracker = 4096, kMaxMetadata = 1 << 20;
constexpr std::string_view kRelease = "release", kIterPrefix = "iter_";
constexpr size_t kIterDigits = 7;

std::optional<int64_t> whole_number(std::string_view digits) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (error != std::errc() || end != digits.data() + digits.size() || n < 0) return std::nullopt;
  return digits.front() == '-' ? std::nullopt : std::optional(n);
}

std::string text_of(const InputFolder& folder, std::string_view name, int64_t most) {
  const auto file = folder.open(name);
  if (file->size() > most) {
    throw refused("megatron.tracker",
                  cat("expected a file of at most ", most, " bytes, found ", file->size()))
        .in_file(file->name());
  }
  const Bytes bytes = file->read_range(0, file->size());
  return {bytes.begin(), bytes.end()};
}

std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

// The iterations that lie in a root, by the names of their folders.
std::vector<std::string> iterations_of(std::span<const std::string> entries) {
  std::vector<std::string> out;
  for (std::string_view entry : entries) {
    if (!entry.ends_with('/')) continue;
    entry.remove_suffix(1);
    if (entry == kRelease || iteration_of(entry)) out.emplace_back(entry);
  }
  return out;
}

std::string folder_named_by_tracker(const InputFolder& root) {
  const std::string text = trimmed(text_of(root, kTracker, kMaxTracker));
  if (text == kRelease) return text;
  const auto iteration = text.empty() ? std::nullopt : whole_number(text);
  if (!iteration) {
    throw refused("megatron.tracker", cat("expected the number of an iteration or `release`, found ",
                                          text.empty() ? "nothing" : cat("\"", escape(text, 60), "\"")))
        .in_file(root.join(kTracker))
        .hint("name the folder of one iteration");
  }
  return iteration_folder_name(*iteration);
}

struct Choice {
  std::string name, note;
};

Choice choose_iteration(const InputFolder& root, std::span<const std::string> entries) {
  const std::vector<std::string> here = iterations_of(entries);
  if (root.has_file(kTracker)) {
    const std::string name = folder_named_by_tracker(root);
    if (root.has_folder(name)) return {name, {}};
    throw refused("megatron.no_iteration",
                  cat("it names the iteration in ", name, ", and no such folder is here (",
                      here.empty() ? "there are none" : cat("there is ", some_of(here)), ")"))
        .in_file(root.join(kTracker))
        .hint(here.empty() ? "" : "name the folder of one iteration");
  }
  if (here.size() == 1) {
    return {here[0], cat("there is no ", kTracker, "; ", here[0], " is the only iteration here")};
  }
  throw refused("megatron.no_iteration", here.empty() ? cat("expected a Megatron checkpoint, found neither ",
                                                            kTracker, " nor mp_rank_* folders")
                                                      : cat("there is no ", kTracker, ", and ", here.size(),
                                                            " iterations are here: ", some_of(here)))
      .in_file(root.path())
      .hint(here.empty() ? "" : "name the folder of one iteration");
}

// The value of the outermost "sharded_backend".
class Backend final : public JsonVisitor {
 public:
  std::string value;
  void open_object() override { ++depth_; }
  void open_array() override { ++depth_; }
  void close() override { --depth_; }
  void key(const std::string& name) override { is_it_ = depth_ == 1 && name == "sharded_backend"; }
  void text(const std::string& text) override {
    if (is_it_ && depth_ == 1) value = text;
    is_it_ = false;
  }
  void count(uint64_t) override {}
  void other(std::string_view) override {}

 private:
  int depth_ = 0;
  bool is_it_ = false;
};

void check_backend(const Folder& folder) {
  constexpr std::string_view kName = "metadata.json";
  constexpr int kMaxDepth = 16;
  Backend backend;
  if (!folder.files.has_file(kName))
    throw refused("megatron.missing_files",
                  cat(kName, " is missing, which belongs to `.metadata` and common.pt"))
        .in_file(folder.files.path())
        .hint("--from dcp reads the tensors without what Megatron says of them");
  try {
    parse_strict_json(text_of(folder.files, kName, kMaxMetadata), kMaxDepth, backend);
  } catch (Error& e) {
    throw e.in_file(folder.files.join(kName));
  }
  if (backend.value == "torch_dist") return;
  Error e = refused("megatron.backend", cat("expected the sharded backend torch_dist, found ",
                                            backend.value.empty() ? "none" : escape(backend.value, 60)));
  if (backend.value == "zarr")
    e.hint("convert it with Megatron-LM of 2024 or 2025, which read zarr and write torch_dist");
  throw e.in_file(folder.files.join(kName));
}

bool is_rank_folder(std::string_view name) { return name.starts_with("mp_rank_"); }

// "mp_rank_00" for "." where that is where the command runs.
std::string name_of_folder(const std::string& path) {
  return std::string(base_of(std::filesystem::absolute(path).lexically_normal().string()));
}

// The folder a target stands for: the tracker file stands for the root it lies in, a rank's file for the
// iteration.
std::string folder_of(const Target& target) {
  if (!target.file) return target.path;
  const std::string folder = parent_of(target.path);
  if (!is_rank_folder(name_of_folder(folder))) return folder;
  return folder == "." ? ".." : parent_of(folder);
}

// A file that means nothing but in the folder of its iteration.
bool is_part_of_iteration(const Target& target) {
  const std::string_view name = base_of(target.path);
  if (is_rank_folder(name_of_folder(parent_of(target.path)))) return name.ends_with(".pt");
  return name == "metadata.json" || name == "common.pt" || name == ".metadata" || name.ends_with(".distcp");
}

// More than what names its kind.
bool has_data(std::span<const std::string> entries) {
  return std::ranges::any_of(entries, [](const std::string& entry) {
    return entry == ".metadata" || entry == "common.pt" || is_rank_folder(entry);
  });
}

bool is_root(std::span<const std::string> entries) {
  return std::ranges::find(entries, kTracker) != entries.end() || !iterations_of(entries).empty();
}

}  // namespace

std::string iteration_folder_name(int64_t iteration) {
  const std::string digits = cat(iteration);
  const size_t zeros = digits.size() < kIterDigits ? kIterDigits - digits.size() : 0;
  return cat(kIterPrefix, std::string(zeros, '0'), digits);
}

std::optional<int64_t> iteration_of(std::string_view name) {
  if (!name.starts_with(kIterPrefix) || name.size() == kIterPrefix.size()) return std::nullopt;
  return whole_number(name.substr(kIterPrefix.size()));
}

std::optional<FolderKind> kind_of(std::span<const std::string> entries) {
  const auto has = [&](std::string_view name) { return std::ranges::find(entries, name) != entries.end(); };
  if (has("metadata.json") || (has("common.pt") && has(".metadata"))) return FolderKind::kCore;
  if (has(".metadata")) return FolderKind::kPlainDcp;
  const bool ranks = std::ranges::any_of(
      entries, [](const std::string& entry) { return is_rank_folder(entry) && entry.ends_with('/'); });
  return ranks ? std::optional(FolderKind::kLegacy) : std::nullopt;
}

bool looks_like(const Target& target, FolderKind kind) {
  try {
    if (target.file) {
      if (base_of(target.path) != kTracker && !is_part_of_iteration(target)) return false;
      const Target folder = open_target(folder_of(target));
      // Any program may call its file metadata.json: this one's folder has more of an iteration.
      if (base_of(target.path) != kTracker && !(kind_of(folder.entries) && has_data(folder.entries)))
        return false;
      return looks_like(folder, kind);
    }
    if (!target.folder) return false;
    if (const auto own = kind_of(target.entries)) {
      // A folder that torch wrote is Megatron's only where its name or the tracker says so.
      return *own == kind && (kind != FolderKind::kPlainDcp || iteration_of(base_of(target.path)));
    }
    if (!is_root(target.entries)) return false;
    try {
      const Choice choice = choose_iteration(*target.folder, target.entries);
      return kind_of(target.folder->list(choice.name)).value_or(FolderKind::kLegacy) == kind;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      return kind == FolderKind::kLegacy;
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;  // of the system: no answer at all
    return false;
  }
}

Folder find_folder(const Target& target) {
  Folder folder(folder_of(target));
  folder.entries = folder.files.list();
  std::optional<FolderKind> kind = kind_of(folder.entries);
  if (!kind) {
    Choice choice = choose_iteration(folder.files, folder.entries);
    folder = Folder(folder.files.join(choice.name));
    folder.note = std::move(choice.note);
    folder.entries = folder.files.list();
    kind = kind_of(folder.entries);
  }
  if (!kind) {
    throw refused("megatron.no_iteration",
                  folder.entries.empty()
                      ? std::string("the folder of the iteration is empty")
                      : std::string("expected metadata.json, .metadata or mp_rank_* folders, found none"))
        .in_file(folder.files.path());
  }
  folder.kind = *kind;
  folder.name = base_of(folder.files.path());
  folder.iteration = iteration_of(folder.name);
  if (folder.kind == FolderKind::kCore) check_backend(folder);
  return folder;
}

}  // namespace uckpt::megatron
