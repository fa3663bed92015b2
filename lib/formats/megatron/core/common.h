// `common.pt` of a Megatron-core checkpoint: all that is not sharded. A torch.save dict with the run's
// `args`, `iteration`, `content_metadata`, and of the optimizers what is no tensor.
//
// Facts: read off files by megatron-core 0.16.1; checkpoints by other programs (NeMo) have no `args`.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "lib/formats/dcp/saved.h"
#include "lib/formats/deepspeed/source.h"
#include "lib/formats/format.h"
#include "lib/formats/megatron/arguments.h"
#include "lib/formats/torch/torch_file.h"

namespace uckpt::megatron {

// How many steps were taken; dense and expert parameters have optimizers of their own.
struct Steps {
  std::optional<deepspeed::Scalar> dense, expert;

  // Takes what an optimizer's state dict says: `param_groups` with a `step` each, or one `common_step`.
  void take(const torch::TorchFile& file, const std::shared_ptr<ByteSource>& bytes,
            const pickle::Value& optimizer);
  const std::optional<deepspeed::Scalar>& of(bool is_expert) const {
    return is_expert && expert ? expert : dense ? dense : expert;
  }
};

struct Common {
  std::shared_ptr<InputFile> bytes;  // null where the folder has none
  std::unique_ptr<torch::TorchFile> file;
  Arguments arguments;
  std::optional<int64_t> iteration;
  std::string sharding;  // how the optimizer's state is sharded; empty where nothing says
  Steps steps;
};

// Throws what the reader of torch.save files throws, naming the file.
Common read_common(const InputFolder& folder, const OpenOptions& options);
// Of a checkpoint that torch itself wrote, where `args` and `iteration` are objects among the others.
Common common_of_objects(const dcp::Saved& saved, const OpenOptions& options);

}  // namespace uckpt::megatron
