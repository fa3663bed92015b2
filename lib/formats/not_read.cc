#include "lib/formats/not_read.h"

#include <algorithm>

#include "lib/base/text.h"

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

std::optional<Error> unsupported_folder(const Target& target) {
  if (any_entry(target, "", ".distcp")) {
    if (has(target, "metadata.json")) return unsupported("a Megatron distributed checkpoint (torch_dist)");
    if (has(target, ".metadata")) return unsupported("a PyTorch distributed checkpoint (DCP)");
    return refused("dcp.unfinished",
                   "PyTorch distributed checkpoint (DCP) without `.metadata`: the save was never finished");
  }
  if (has(target, ".metadata")) {
    return refused("dcp.incomplete",
                   "PyTorch distributed checkpoint (DCP): `.metadata` is here, its *.distcp files are not");
  }
  if (has(target, "latest_checkpointed_iteration.txt") || any_entry(target, "iter_", "/")) {
    return unsupported("a Megatron checkpoint folder");
  }
  if (any_entry(target, "mp_rank_", "/")) return unsupported("a Megatron checkpoint (legacy format)");
  if (has(target, "metadata.json")) return unsupported("a Megatron distributed checkpoint");
  if (any_entry(target, "local_", ".pt") || any_entry(target, "model_", "_rank_0.pt") ||
      any_entry(target, "pytorch_model_fsdp_", "/") || any_entry(target, "", "-rank0.pt")) {
    return unsupported("a folder of FSDP shards, one file a rank");
  }
  if (any_entry(target, "pytorch_model", ".bin.index.json")) {
    return unsupported("a Hugging Face model in sharded .bin files")
        .hint("its .bin files can be read one by one");
  }
  if (has(target, "checkpoint") && any_entry(target, "", ".index"))
    return unsupported("a TensorFlow checkpoint");
  return std::nullopt;
}

std::string looked_for() {
  std::string out;
  for (const Format& f : formats()) out += cat(out.empty() ? "" : ", ", f.name, " (", f.what, ")");
  return out;
}

}  // namespace

std::optional<Error> not_a_checkpoint_file(const Target& target) {
  if (!target.file) return std::nullopt;
  const std::string name = target.path.substr(target.path.find_last_of('/') + 1);
  if (name.ends_with(".distcp") || name == ".metadata") {
    return refused("format.part", "this is one file of a PyTorch distributed checkpoint (DCP)")
        .hint("name the folder it lies in");
  }
  if (target.file->size() == 0 && !name.ends_with(".safetensors")) {
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
