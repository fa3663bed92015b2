#include <string>

#include "lib/base/text.h"
#include "lib/formats/dcp/write/dcp_writer.h"
#include "lib/formats/dcp/write/hugging_face_writer.h"
#include "lib/formats/deepspeed/write/deepspeed_writer.h"
#include "lib/formats/deepspeed/write/missing.h"
#include "lib/formats/hdf5/hdf5_writer.h"
#include "lib/formats/megatron/core/core_writer.h"
#include "lib/formats/megatron/write/megatron_writer.h"
#include "lib/formats/megatron/write/target_mesh.h"
#include "lib/formats/safetensors/safetensors_writer.h"
#include "lib/formats/torch/torch_writer.h"
#include "lib/formats/writer.h"

namespace uckpt {

std::span<const Writer> writers() {
  static const Writer kWriters[] = {
      {"hdf5", "one consolidated HDF5 file", {".h5", ".hdf5"}, hdf5::lay_out},
      {"safetensors",
       "safetensors: one file, or a folder as transformers loads it",
       {".safetensors"},
       safetensors::lay_out,
       false,
       true},
      {"deepspeed",
       "DeepSpeed checkpoint, ZeRO stage 1, 2 or 3",
       {},
       deepspeed::lay_out,
       true,
       false,
       deepspeed::complete},
      {"torch",
       "torch.save file: the tree it came from, else a state dict",
       {".pt", ".pth", ".bin"},
       torch::lay_out},
      {"deepspeed-universal",
       "DeepSpeed universal folder, for any mesh",
       {},
       deepspeed::lay_out_universal,
       false,
       false,
       deepspeed::complete},
      {"dcp",
       "PyTorch distributed checkpoint (DCP), for torch.distributed.checkpoint.load",
       {},
       dcp::lay_out,
       true,
       true,
       dcp::complete},
      {"dcp-hf",
       "weights as HuggingFaceStorageWriter leaves them: safetensors shards of each rank",
       {},
       dcp::lay_out_hugging_face,
       true,
       true},
      {"megatron",
       "Megatron checkpoint, legacy (\"torch\") format, for any mesh",
       {},
       megatron::lay_out,
       true,
       false,
       nullptr,
       megatron::ranks,
       "megatron"},
      {"megatron-core",
       "Megatron-core checkpoint (torch_dist), for any mesh",
       {},
       megatron::lay_out_core,
       true,
       true,
       nullptr,
       megatron::ranks,
       "megatron"},
  };
  return kWriters;
}

const Writer& writer_for(std::string_view kind, std::string_view path) {
  std::string known;
  for (const Writer& w : writers()) {
    if (w.name == kind) return w;
    known += cat(known.empty() ? "" : ", ", w.name);
    if (!kind.empty()) continue;
    for (std::string_view extension : w.extensions)
      if (path.ends_with(extension)) return w;
  }
  if (!kind.empty())
    throw trouble("output.kind", cat("unknown kind of output `", escape(kind), "`: expected one of ", known));
  throw trouble("output.kind", "the kind of output cannot be told from its name")
      .in_file(path)
      .hint(cat("say it with --to, one of ", known));
}

}  // namespace uckpt
