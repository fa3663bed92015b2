// What each rank of a target holds: its parameters in order of registration, with all their states, and the
// shards that their holes are parts of.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/formats/megatron/write/source_state.h"
#include "lib/formats/writer.h"

namespace uckpt::megatron {

// One parameter or buffer of one rank under its name there. Numbers count in the rank's list of shards.
struct Held {
  std::string name, logical_name;
  Shape shape;
  std::optional<size_t> master, module, buffer;
  std::map<std::string, size_t, std::less<>> states;     // of the master's shape: exp_avg, …
  std::map<std::string, uint32_t, std::less<>> numbers;  // one value: step; indices of catalog tensors
  std::optional<std::string> tied_to;                    // another name on this rank has the bytes
  DType dtype{};                                         // of the module's weight
  bool is_expert = false, is_shared_embedding = false;
  std::vector<int64_t> order;

  bool is_trained() const { return !tied_to && !buffer && (master || !states.empty()); }
  size_t weight() const { return module ? *module : master ? *master : *buffer; }
  // What the optimizer keeps in fp32: of a parameter that is fp32 itself, that.
  std::optional<size_t> trained_weight() const { return master ? master : module; }
  int64_t numel() const { return numel_of(shape); }
};

class RankParts {
 public:
  // Throws refused `megatron.no_layout` where nothing says what the ranks hold, `megatron.no_weight` for
  // states without a weight, `megatron.order` where nothing tells the order of registration and it
  // `needs_order`.
  RankParts(const Catalog& catalog, const WriteRequest& request, const SourceState& source, int64_t ep,
            TargetLayout& layout, bool needs_order = true);

  const Catalog& catalog() const { return catalog_; }
  TargetLayout& layout() { return layout_; }
  size_t ranks() const { return held_.size(); }
  const std::vector<Held>& held(size_t rank) const { return held_[rank]; }
  const Shard& shard(size_t rank, size_t index) const { return (*shards_)[rank].shards[index]; }

  bool is_any_trained() const { return is_any_trained_; }
  // All of a shard. `is_copy`: another hole has its elements, too.
  Hole hole(size_t rank, size_t index, DType dtype, bool is_copy);
  // All of a tensor that no rule cuts, copied from the second time on.
  Hole whole(uint32_t tensor);
  // A tensor of the state that belongs to no parameter, by its name in the catalog.
  std::optional<uint32_t> loose(const std::string& name) const;
  // read_number() of a catalog tensor, as a real number.
  double number(uint32_t tensor) const;

 private:
  void make_shards(const WriteRequest& request);
  void collect(size_t rank);
  void settle(Held& held, size_t rank) const;
  void set_dtypes(const WriteRequest& request, const SourceState& source);
  void find_shared();
  void sort(const SourceState& source);

  const Catalog& catalog_;
  TargetLayout& layout_;
  std::shared_ptr<const Shards> cut_;  // keeps `shards_`
  const std::vector<RankShards>* shards_ = nullptr;
  std::vector<std::vector<Held>> held_;                 // by rank
  std::map<std::pair<size_t, size_t>, uint32_t> made_;  // rank, index -> shard of the layout
  std::map<uint32_t, uint32_t> wholes_;                 // tensor -> shard
  std::unordered_map<std::string, uint32_t> loose_;
  mutable std::unordered_map<uint32_t, double> numbers_;
  bool is_any_trained_ = false, has_order_ = false;
};

}  // namespace uckpt::megatron
