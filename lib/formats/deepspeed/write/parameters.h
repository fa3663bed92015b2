// The parameters of a DeepSpeed target: what each has in the catalog, and in which optimizer group and order
// they are kept.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/formats/deepspeed/write/expert_groups.h"
#include "lib/formats/deepspeed/write/param_groups.h"
#include "lib/formats/writer.h"

namespace uckpt::deepspeed {

// One parameter or buffer under one name, in all its states. Numbers are indices of catalog tensors; those of
// tied names are the source's own.
struct Named {
  std::string name;
  std::string key;  // in the module's state dict
  std::optional<uint32_t> master, module, buffer;
  std::map<std::string, uint32_t, std::less<>> states;   // of the master's shape: exp_avg, …
  std::map<std::string, uint32_t, std::less<>> numbers;  // one value: step, …
  std::optional<std::string> tied_to;                    // another name has the bytes
  DType module_dtype = DType::kF32;

  bool is_trained() const { return master.has_value() && !tied_to; }
  bool is_frozen() const { return !master && module && !tied_to; }
  uint32_t weight() const { return module ? *module : master ? *master : *buffer; }
};

class Parameters {
 public:
  // Throws refused `deepspeed.groups` where the source speaks of other parameters than there are,
  // `deepspeed.no_masters` where there is nothing to train, and `deepspeed.state` for states of a shape of
  // their own.
  Parameters(const Catalog& catalog, const WriteRequest& request, const SourceObjects& source);

  const Catalog& catalog() const { return catalog_; }
  const Named& at(std::string_view name) const { return all_[index_.at(std::string(name))]; }
  bool has(std::string_view name) const { return index_.contains(std::string(name)); }
  const std::vector<Named>& all() const { return all_; }  // as the module's state_dict has them
  // Is that the order in which the program registers them?
  bool order_is_known() const { return order_is_known_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  const std::vector<PipelineLayer>& pipeline() const { return pipeline_; }
  const std::vector<MoeLayer>& moe() const { return moe_; }
  const std::vector<FusedExperts>& fused() const { return fused_; }  // of AutoEP
  // Is it in files of experts?
  bool is_expert(const std::string& name) const { return parse_expert(name) || layer_of(fused_, name); }
  // How many experts the layer of an expert's weight has.
  int64_t experts_of(std::string_view name) const;
  // Groups the experts as `ep` ranks have them; where `as_before`, and the source says it, each layer has as
  // many ranks as there.
  void spread_over(int64_t ep, bool as_before, const std::function<int64_t(const std::string&)>& numel_of) {
    if (!as_before || most_expert_ranks() != ep)
      groups_ = spread_experts(catalog_, groups_, moe_, ep, numel_of);
    groups_ = spread_fused(groups_, fused_, catalog_.mesh.ep, ep, numel_of);
  }
  std::vector<std::string> frozen() const;   // in order, tied ones not
  std::vector<std::string> buffers() const;  // likewise
  const Shape& shape(const Named& n) const { return catalog_.tensors[n.weight()].shape; }
  // The tensor of the program's own state that a file of the source has at a path.
  std::optional<uint32_t> loose(const std::string& file, const std::string& path) const;
  // Names of the states that are cut like the masters, and of those that are one number, in the source's
  // order.
  const std::vector<std::string>& states() const { return states_; }
  const std::vector<std::string>& numbers() const { return numbers_; }
  // read_number() of a catalog tensor, once.
  const Bytes& number(uint32_t tensor) const;

 private:
  void collect(const WriteRequest& request);
  void prefer_stated_names(const SourceObjects& source);
  void check_states(const Named& n) const;
  void set_module_dtypes(const WriteRequest& request, const SourceObjects& source);
  void find_parts(const SourceObjects& source);
  void order(const SourceObjects& source, const Shards* shards);
  void group(const SourceObjects& source);
  void read_state_names(const SourceObjects& source);
  int64_t most_expert_ranks() const;
  Named& add(const std::string& name);

  const Catalog& catalog_;
  std::vector<Named> all_;
  std::unordered_map<std::string, size_t> index_;
  std::vector<ParamGroup> groups_;
  std::vector<PipelineLayer> pipeline_;
  std::vector<MoeLayer> moe_;
  std::vector<FusedExperts> fused_;
  std::map<std::string, int64_t, std::less<>> experts_;  // by the layer's prefix
  std::unordered_map<std::string, uint32_t> loose_;      // by name
  std::vector<std::string> states_, numbers_;
  bool order_is_known_ = false;
  mutable std::unordered_map<uint32_t, Bytes> read_;  // by tensor
};

}  // namespace uckpt::deepspeed
