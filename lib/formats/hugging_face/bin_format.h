// Hugging Face models in torch.save files: `pytorch_model.bin`, or several with
// `pytorch_model.bin.index.json`, as transformers' save_pretrained(safe_serialization=False) leaves them.
#pragma once

#include <array>

#include "lib/formats/format.h"
#include "lib/formats/hugging_face/model_reader.h"

namespace uckpt::hugging_face {

inline constexpr std::array<std::string_view, 4> kUsualBins = {"pytorch_model", "diffusion_pytorch_model",
                                                               "adapter_model", "model"};
inline constexpr WeightFiles kBinFiles = {
    .code = "hf-bin", .what = ".bin", .ends = ".bin", .usual = kUsualBins};

// Folders and indexes. A file alone is a torch.save file like any other; where a folder has its weights as
// safetensors, too, those are read.
bool recognises_bin(const Target& target);
Catalog read_bin(const Target& target, const OpenOptions& options);

}  // namespace uckpt::hugging_face
