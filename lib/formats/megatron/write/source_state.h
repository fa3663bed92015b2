// What the input says beside its tensors, where it is a Megatron checkpoint or was made of one: the pickles
// of `model_optim_rng.pt`, or of Megatron-core's `common.pt` and objects.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/megatron/arguments.h"
#include "lib/formats/megatron/write/module_order.h"
#include "lib/pickle/document.h"
#include "lib/tensor/catalog.h"

namespace uckpt::megatron {

// get() of what may not be there, or be no dict.
pickle::Value entry(const pickle::Value& dict, std::string_view key);

struct SourceFile {
  std::string origin;  // path inside the checkpoint
  std::string folder;  // "mp_rank_00_001"; of the core format empty
  int64_t tp = 0, pp = 0, ep = 0;
  int64_t dp = 0;  // of random states that each data parallel rank has of its own
  pickle::Value root;
};

class SourceState {
 public:
  explicit SourceState(const Catalog& catalog);

  bool empty() const { return files_.empty() && !common_.root; }
  // The file of a place on the mesh, or of the one nearest to it; null where there are no legacy files.
  const SourceFile* nearest(int64_t tp, int64_t pp, int64_t ep) const;
  // The states of the random generators of the place nearest to it, a list, and the file that has it.
  struct Found {
    pickle::Value value;
    const SourceFile* file = nullptr;
  };
  Found rng(int64_t tp, int64_t pp, int64_t ep, int64_t dp) const;
  // What all ranks say: of the first file, or of common.pt.
  const SourceFile& common() const { return common_; }
  pickle::Value args_value() const { return entry(common_.root, "args"); }
  const Arguments& args() const { return args_; }

  // The options of the optimizer's groups, of each kind once, in the order in which files have them.
  const std::vector<Found>& groups() const { return groups_; }
  const Found& grad_scaler() const { return grad_scaler_; }
  // Its optimizer's own state dict has its states: it is not distributed.
  bool has_plain_optimizer() const { return has_plain_optimizer_; }
  // And a step for each parameter, as torch's optimizers keep it.
  bool has_parameter_steps() const { return has_parameter_steps_; }

  // Empty where no file has a state dict.
  const ModuleOrder& order() const { return order_; }
  // The extra state of a module by its global numbers: "decoder.layers.#.mlp.linear_fc1._extra_state", {5}.
  pickle::Value extra_state(const std::string& shape, const std::vector<int64_t>& numbers, int64_t tp,
                            const SourceFile** file) const;

 private:
  void take(const Object& object, const pickle::Value& root);
  void read_optimizer(const pickle::Value& value, const SourceFile& file);
  void read_state(const pickle::Value& optimizer);
  void read_models();
  void add_extra_states();

  struct ExtraState {
    int64_t tp;
    pickle::Value value;
    const SourceFile* file;
  };
  std::vector<std::unique_ptr<pickle::Document>> documents_;
  std::vector<SourceFile> files_;
  std::vector<SourceFile> rng_files_;         // of the core format: one object each
  std::deque<SourceFile> optimizer_objects_;  // likewise
  SourceFile common_;
  Arguments args_;
  std::vector<Found> groups_;
  std::vector<std::string> group_texts_;
  Found grad_scaler_;
  bool has_plain_optimizer_ = false, has_parameter_steps_ = false;
  ModuleOrder order_;
  std::map<std::pair<std::string, std::vector<int64_t>>, std::vector<ExtraState>> extra_;
};

}  // namespace uckpt::megatron
