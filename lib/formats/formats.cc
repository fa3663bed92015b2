// The one list of formats. A new format is a folder beside this file and one line here.
#include <algorithm>
#include <array>

#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/dcp_format.h"
#include "lib/formats/deepspeed/deepspeed_format.h"
#include "lib/formats/format.h"
#include "lib/formats/hdf5/hdf5_format.h"
#include "lib/formats/hugging_face/bin_format.h"
#include "lib/formats/megatron/core/core_format.h"
#include "lib/formats/megatron/legacy_format.h"
#include "lib/formats/not_read.h"
#include "lib/formats/safetensors/safetensors_format.h"
#include "lib/formats/torch/torch_format.h"

namespace uckpt {
namespace {

// In the order of recognition: the more particular first. A DeepSpeed file is a torch.save file, too.
constexpr std::array kFormats = {
    Format{"deepspeed", "DeepSpeed checkpoint: ZeRO 0 to 3, pipeline, MoE, universal", deepspeed::recognises,
           deepspeed::read},
    Format{"megatron-core", "Megatron-core checkpoint: torch_dist, fsdp_dtensor, torch_dcp",
           megatron::recognises_core, megatron::read_core},
    Format{"megatron", "Megatron-LM checkpoint: mp_rank_* folders", megatron::recognises_legacy,
           megatron::read_legacy},
    Format{"dcp", "PyTorch distributed checkpoint (DCP), or its Hugging Face shards", dcp::recognises,
           dcp::read},
    Format{"hdf5", "HDF5 file: our consolidated one, or plain tensors", hdf5::recognises, hdf5::read},
    Format{"hf-bin", "Hugging Face folder of .bin files", hugging_face::recognises_bin,
           hugging_face::read_bin},
    Format{"safetensors", "safetensors file, or Hugging Face folder", safetensors::recognises,
           safetensors::read},
    Format{"torch", "torch.save file, zip or legacy", torch::recognises, torch::read},
};

constexpr int64_t kHeadBytes = 512;

const Format& format_called(const std::string& name) {
  const auto at = std::ranges::find(kFormats, name, &Format::name);
  if (at != kFormats.end()) return *at;
  std::vector<std::string> names;
  for (const Format& f : kFormats) names.emplace_back(f.name);
  std::string known;
  for (const std::string& n : names) known += cat(known.empty() ? "" : ", ", n);
  Error e = trouble("usage.format",
                    cat("unknown kind of checkpoint `", escape(name), "`: expected one of ", known));
  if (const auto near = nearest(name, names)) e.hint(cat("did you mean `", *near, "`?"));
  throw e;
}

const Format& recognise(const Target& target) {
  if (const std::optional<Error> e = not_a_checkpoint_file(target)) throw *e;
  const auto at = std::ranges::find_if(kFormats, [&](const Format& f) { return f.recognises(target); });
  if (at == kFormats.end()) throw not_read(target);
  return *at;
}

}  // namespace

std::span<const Format> formats() { return kFormats; }

Target open_target(const std::string& path) {
  Target target;
  target.path = path;
  if (is_folder(path)) {
    target.folder = std::make_unique<InputFolder>(path);
    target.entries = target.folder->list();
  } else {
    target.file = InputFile::open(path);
    target.head = target.file->read_range(0, std::min(kHeadBytes, target.file->size()));
  }
  return target;
}

bool looks_like_checkpoint(const std::string& path) {
  const Target target = open_target(path);
  return std::ranges::any_of(kFormats, [&](const Format& f) { return f.recognises(target); });
}

Catalog open_catalog(const std::string& path, const OpenOptions& options) {
  enter_phase("open");
  const Format* const forced = options.from.empty() ? nullptr : &format_called(options.from);
  const Target target = open_target(path);
  try {
    Catalog catalog = (forced != nullptr ? *forced : recognise(target)).read(target, options);
    if (catalog.path.empty()) catalog.path = path;
    return catalog;
  } catch (Error& e) {
    throw e.in_file(path);
  }
}

}  // namespace uckpt
