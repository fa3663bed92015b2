#include "lib/formats/not_read.h"

#include <algorithm>
#include <initializer_list>

#include "lib/base/text.h"
#include "lib/formats/megatron/folder.h"

namespace uckpt {
namespace {

bool begins(const Bytes& head, std::string_view text, size_t at = 0) {
  return head.size() >= at + text.size() &&
         std::equal(text.begin(), text.end(), head.begin() + static_cast<std::ptrdiff_t>(at),
                    [](char c, uint8_t b) { return static_cast<uint8_t>(c) == b; });
}

bool has(const Target& target, std::string_view entry) {
  return std::ranges::find(target.entries, entry) != target.entries.end();
}

bool any_entry(const Target& target, std::string_view prefix, std::string_view suffix) {
  return std::ranges::any_of(target.entries, [&](const std::string& name) {
    return name.starts_with(prefix) && name.ends_with(suffix);
  });
}

Error unsupported(std::string_view what) {
  return refused("format.unsupported", cat("this is ", what, ": reading it is not supported yet"));
}

struct Magic {
  std::string_view bytes;
  size_t at;
  std::string_view what, hint;
};

// What else is handed to a checkpoint reader now and then.
constexpr Magic kMagics[] = {
    {"version https://git-lfs", 0, "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"},
    {"GGUF", 0, "a GGUF file", ""},
    {"\x93NUMPY", 0, "a NumPy array", ""},
    {"\x1f\x8b\x08", 0, "a gzip file", "unpack it first"},
    {"\x28\xb5\x2f\xfd", 0, "a zstd file", "unpack it first"},
    {"<!DOCTYPE", 0, "an HTML page", "the download went wrong: fetch the file again"},
    {"<html", 0, "an HTML page", "the download went wrong: fetch the file again"},
};

// Folders right below that have one of these files: the steps of a run, or the parts that Accelerate keeps
// apart.
std::vector<std::string> folders_with(const Target& target, std::initializer_list<std::string_view> files) {
  constexpr size_t kMost = 1000;
  std::vector<std::string> out;
  for (const std::string& name : target.entries) {
    if (out.size() == kMost) break;
    const auto holds = [&](std::string_view file) { return target.folder->has_file(cat(name, file)); };
    if (name.ends_with('/') && std::ranges::any_of(files, holds)) out.push_back(name);
  }
  return out;
}

Error unfinished(const Target& target) {
  return refused("dcp.unfinished",
                 "PyTorch distributed checkpoint (DCP) without `.metadata`: the save was never finished")
      .hint(has(target, ".metadata.tmp")
                ? "its last step, giving `.metadata.tmp` its name, did not happen: take an earlier step"
                : "take an earlier step, or copy `.metadata` here if it was left behind");
}

Error only_below(const Target& target, const std::vector<std::string>& below, std::string_view kind) {
  return refused("format.unknown",
                 cat("the folder holds ", below.size(), below.size() == 1 ? " checkpoint" : " checkpoints",
                     kind, ", and is none itself"))
      .hint(cat("name the one that is meant: ", escape(target.folder->join(below.back()))));
}

std::optional<Error> unsupported_folder(const Target& target) {
  if (any_entry(target, "", ".distcp")) return unfinished(target);
  if (const std::vector<std::string> below = folders_with(target, {".metadata"}); !below.empty())
    return only_below(target, below, " of PyTorch's distributed format (DCP)");
  if (any_entry(target, "local_", ".pt") || any_entry(target, "model_", "_rank_0.pt") ||
      any_entry(target, "pytorch_model_fsdp_", "/") || any_entry(target, "", "-rank0.pt")) {
    return unsupported("a folder of FSDP shards, one file a rank")
        .hint(
            "load it into the model that it was saved from, and save that with torch.distributed.checkpoint");
  }
  if (has(target, "checkpoint") && any_entry(target, "", ".index"))
    return unsupported("a TensorFlow checkpoint");
  const std::vector<std::string> below =
      folders_with(target, {"latest", megatron::kTracker, "model.safetensors", "model.safetensors.index.json",
                            "pytorch_model.bin", "pytorch_model.bin.index.json"});
  if (!below.empty()) return only_below(target, below, "");
  return std::nullopt;
}

std::string looked_for() {
  std::string out;
  for (const Format& f : formats()) out += cat(out.empty() ? "" : ", ", f.name);
  return out;
}

}  // namespace

std::optional<Error> not_a_checkpoint_file(const Target& target) {
  if (!target.file) return std::nullopt;
  const bool may_be_empty = target.path.ends_with(".safetensors") || target.path.ends_with(".distcp");
  if (target.file->size() == 0 && !may_be_empty) {
    return refused("format.empty", "the file is empty");
  }
  for (const Magic& m : kMagics) {
    if (begins(target.head, m.bytes, m.at)) {
      return refused("format.unsupported", cat("expected a checkpoint, found ", m.what))
          .hint(std::string(m.hint));
    }
  }
  return std::nullopt;
}

Error not_read(const Target& target) {
  if (std::optional<Error> e = target.folder ? unsupported_folder(target) : std::nullopt) return *e;
  if (target.folder && target.entries.empty()) return refused("format.empty", "the folder is empty");
  return refused("format.unknown", cat("no checkpoint format fits this ", target.folder ? "folder" : "file"))
      .hint(cat("looked for: ", looked_for()));
}

}  // namespace uckpt
