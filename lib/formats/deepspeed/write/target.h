// A DeepSpeed checkpoint to be: its mesh and stage, and everything its files are made from.
#pragma once

#include "lib/formats/deepspeed/write/output_pickle.h"
#include "lib/formats/deepspeed/write/parameters.h"
#include "lib/formats/deepspeed/write/stages.h"

namespace uckpt::deepspeed {

// How a parameter's tensor parallel fragments are joined.
struct JoinedParameter {
  const Named* name;
  std::vector<const Shard*> shards;  // by rank; null where one has none
  bool is_replicated = false;
  bool is_padded = false;  // behind its last rows
  bool needs_map = false;  // else the ranks' rows follow one another, unless it is replicated
};
struct JoinedParameters {
  std::vector<JoinedParameter> all;  // that are trained
  std::optional<int64_t> rows;       // of each padded one, without its padding
};

struct TargetCheckpoint {
  const SourceObjects& source;
  const Parameters& parameters;
  ShardBook& book;
  std::vector<std::string>& notes;
  std::string folder;  // "global_step4/"
  std::string ds_version;
  int stage = 1;                   // of ZeRO
  int64_t dp = 1, tp = 1, pp = 1;  // of experts each of their groups knows how many ranks have them
  int64_t ep = 1;                  // and of AutoEP's, of which all layers have as many
  std::optional<Stages> stages = std::nullopt;  // of a pipeline
  bool is_universal = false;                    // one folder for any mesh
  bool is_bf16 = false;
  mutable std::optional<JoinedParameters> joined = std::nullopt;  // once a file has to say it

  // Model ranks count the stages' tensor parallel ranks one after the other.
  int64_t stage_of(int64_t model_rank) const { return model_rank / tp; }
  bool holds(int64_t model_rank, const std::string& name) const {
    return !stages || stages->hold(stage_of(model_rank), name);
  }
  // DeepSpeed's BF16_Optimizer, whose files have fewer entries and keep their padding.
  bool is_bf16_optimizer() const;
};

// How one group's flat buffer lies over the ranks (formats: DeepSpeed's stage_1_and_2.py).
struct FlatParameter {
  std::string name;
  std::string local_name;  // with the number that an expert has on its rank
  Shape shape;
  int64_t numel, at;  // elements
  int64_t filler;     // after it
  int64_t first = 0;  // of its elements in the tensor, of which a rank of AutoEP's has a share
};
struct FlatGroup {
  size_t group = 0;                       // of the optimizer's
  int64_t ranks = 1, rank = 0;            // which partition this is: of experts, the data rank is not it
  std::vector<FlatParameter> parameters;  // in storage order
  int64_t used = 0;                       // elements, filler counted
  int64_t partition = 0;                  // elements of one rank, padding counted
  int64_t padding() const;
};

// Stages 1 and 2: the groups are flattened whole and cut into equal partitions. A group of which a pipeline
// stage has nothing is not there.
std::vector<FlatGroup> flat_groups(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank);
// Stage 3: each parameter is cut by itself. `at` and `partition` count the elements of one rank.
std::vector<FlatGroup> sub_groups(const TargetCheckpoint& target);
int64_t share_of(const TargetCheckpoint& target, int64_t numel);  // ceil(numel / dp)

// The files.
// The model file of stages 1 and 2, of stage 3, or of a universal folder under the names of both.
enum class ModelForm : uint8_t { kWhole, kStage3 };
void add_model_file(const TargetCheckpoint& target, ModelForm form, int64_t model_rank, int64_t data_rank);
// The files of a pipeline's layers, and of experts, for one tensor parallel rank.
void add_layer_files(const TargetCheckpoint& target, int64_t tp_rank);
void add_expert_files(const TargetCheckpoint& target, int64_t tp_rank);
void add_optimizer_file12(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank);
void add_universal_files(const TargetCheckpoint& target);
void add_optimizer_file3(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank);

// Parts that they share.
// universal_checkpoint_info: how the tensor parallel fragments are joined. The source's own where it is cut
// over as many ranks and no rules tell more, else patterns and affine maps of what the target's layout says.
// Throws refused `deepspeed.padding`, `deepspeed.summand` where neither can say it.
bool describes_itself(const TargetCheckpoint& target, const pickle::Value& source);
void write_universal_info(OutputPickle& file, const TargetCheckpoint& target, const pickle::Value& source);
// ds_autoep_layers, as the source's `list` has them.
void write_fused_layers(OutputPickle& file, const TargetCheckpoint& target, const pickle::Value& list);
const JoinedParameters& joined_parameters(const TargetCheckpoint& target);
// ds_config with the target's stage.
void write_ds_config(OutputPickle& file, const TargetCheckpoint& target);
// One optimizer group's options, with `params` as given.
void write_group_options(OutputPickle& file, const TargetCheckpoint& target, size_t group,
                         const std::vector<int64_t>& params);
// loss_scaler and what else a loader takes from the state as it is.
void write_scaler(OutputPickle& file, const TargetCheckpoint& target);
// The clipping norm as the source's state has it: loaders of stage 3 pass over it, but it is not lost.
bool write_kept_clip_grad(OutputPickle& file, const TargetCheckpoint& target);
// The same, or what the configuration says: loaders of stages 1 and 2 let it replace their own.
void write_clip_grad(OutputPickle& file, const TargetCheckpoint& target);
// A state that is one number for all parameters of a list: they must agree (`deepspeed.step_disagrees`).
void write_number(OutputPickle& file, const TargetCheckpoint& target, const std::string& state,
                  const std::vector<FlatParameter>& parameters);
// The states in the order of the source, and the numbers among them: false for numbers.
std::vector<std::pair<std::string, bool>> state_order(const TargetCheckpoint& target);
// Throws `deepspeed.no_state` where a parameter lacks a state that others of its list have, as a number or
// cut like the master; tells whether any has it.
bool has_state(const TargetCheckpoint& target, const std::string& state, bool is_cut,
               const std::vector<FlatParameter>& parameters);

}  // namespace uckpt::deepspeed
