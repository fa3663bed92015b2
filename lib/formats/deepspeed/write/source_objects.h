// What the input says beside its tensors: the pickles of a DeepSpeed checkpoint's files, or the optimizer's
// options in a distributed checkpoint of PyTorch, whether they still lie there or in a consolidated file.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/formats/deepspeed/folder.h"
#include "lib/pickle/document.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

// get() of what may not be there, or be no dict.
pickle::Value entry(const pickle::Value& dict, std::string_view key);

// What the reader may have called a tensor that it met at a path: the file's stem is before it where files
// differ.
std::array<std::string, 2> loose_names(const std::string& file, const std::string& path);

// For an option of the optimizer that is a tensor, found at `path` and not selected: without it the others
// are of no use.
Error unselected_option(const char* code, const Catalog& catalog, const std::string& path);

class SourceObjects {
 public:
  // Reads and parses the objects of DeepSpeed files; others are not looked at.
  explicit SourceObjects(const Catalog& catalog);

  // A tree and the file it came from; an empty value where there is none.
  struct Origin {
    pickle::Value root;
    std::string file;  // "mp_rank_00_model_states.pt"
    // The asked rank's own file, which may have been like that one in all but its tensors.
    std::string of_rank = {};
  };
  // The model file of a rank: its own, that of the same model rank, the first one.
  Origin model(int64_t model_rank, int64_t data_rank) const;
  // What an optimizer file holds under `optimizer_state_dict`, or the universal folder's optimizer state.
  pickle::Value zero_state(int64_t model_rank = 0) const;
  // The optimizer's options, one dict a group: a list, or an empty value.
  pickle::Value param_groups(int64_t model_rank = 0) const;
  // The learning rate of a group as the scheduler's state has it, for a source that keeps no options.
  std::optional<double> scheduled_rate(size_t group) const;
  // Without ZeRO: the optimizer's own state_dict in a model file, which numbers its parameters; out of a
  // wrapper for 16-bit types where there is one.
  pickle::Value plain_optimizer(int64_t model_rank) const;
  // Without ZeRO: what the wrapper for 16-bit types has beside that, its loss scale and clipping norm; empty
  // where there is none.
  pickle::Value wrapper() const;
  // Where the reader found a tensor among what param_groups() and zero_state() hold; nothing for other
  // values.
  struct TensorPlace {
    std::string file, path;
  };
  std::optional<TensorPlace> tensor_place(const pickle::Value& value) const;
  // Do the groups tell their parameters by name, and each in the order in which it has them?
  bool groups_have_names() const;
  bool groups_have_order() const { return groups_are_ordered_ && groups_have_names(); }
  // The entries that one group keeps for its parameters: {name: value}; empty where nothing says.
  pickle::Value group_state() const;
  // All states that any of those entries has a value of, by name.
  std::set<std::string> state_names() const;
  // One list entry a group (stages 1, 2) or sub-group (stage 3) of the rank: names and shapes in storage
  // order.
  pickle::Value param_shapes(int64_t model_rank) const {
    return model(model_rank, 0).root.get("param_shapes");
  }
  // All names in those lists, and of parameters that are frozen.
  std::set<std::string> stated_names() const;
  pickle::Value ds_config() const;
  // Entries of ds_config: of a section ("zero_optimization"), or of the top ("").
  std::optional<double> config_number(std::string_view section, std::string_view key) const;
  std::string config_text(std::string_view section, std::string_view key) const;
  bool config_flag(std::string_view section, std::string_view key) const;
  std::optional<int> stage() const;  // of the ZeRO files
  bool empty() const { return models_.empty(); }
  std::vector<int64_t> model_ranks() const;

  // The dicts of a pipeline's layer files, by number, and whether their names say the tensor parallel rank.
  const std::map<int64_t, pickle::Value>& layers() const { return layers_; }
  bool layer_names_have_rank() const { return layer_names_have_rank_; }
  // Of each MoE layer, by number, the dict of one of its experts.
  const std::map<int64_t, pickle::Value>& experts() const { return experts_; }

 private:
  pickle::Value config(std::string_view section, std::string_view key) const;
  void take(const Object& object, std::unique_ptr<pickle::Document> document);

  struct Held {
    std::unique_ptr<pickle::Document> document;
    std::string file;  // "" of options that were put together from many objects
    mutable std::unordered_map<uint32_t, std::string> paths = {};  // of the tensors, once one was asked for
  };
  std::vector<Held> documents_;
  std::map<std::pair<int64_t, int64_t>, Origin> models_;  // model rank, data rank
  std::map<std::pair<int64_t, int64_t>, pickle::Value> optimizers_;
  std::map<int64_t, pickle::Value> layers_, experts_;
  bool layer_names_have_rank_ = false;
  pickle::Value universal_state_, named_groups_;
  bool groups_are_ordered_ = false;
};

}  // namespace uckpt::deepspeed
