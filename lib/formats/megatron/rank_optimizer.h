// The optimizers in a rank's files, as they were pickled.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/megatron/rank_file.h"

namespace uckpt::megatron {

// `optimizer` of a model file: one dict, or a list of them; none where it was not saved.
std::vector<pickle::Value> optimizer_entries(const pickle::Value& root);
// All throw refused `megatron.malformed`.
std::vector<OptimizerEntry> read_optimizers(const torch::TorchFile& file, Source& source,
                                            const pickle::Value& root);
// distrib_optim.pt: a dict of buffers for each optimizer, and None for one whose states another file has.
std::vector<FlatOptimizer> read_flat_optimizers(const torch::TorchFile& file, Source& source);

// `optimizer` as JSON, without the states that are tensors.
std::string view_of_optimizers(const torch::TorchFile& file, const pickle::Value& root);

}  // namespace uckpt::megatron
