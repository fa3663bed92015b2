// The optimizer files of a target: flat masters and moments of one rank.
#include <algorithm>
#include <functional>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// Which catalog tensor of a parameter a flat buffer is of.
using TensorOf = std::function<uint32_t(const Named&)>;

// The ranges that a rank has of a group flattened whole.
std::vector<Hole> ranges12(const TargetCheckpoint& target, const FlatGroup& group,
                           const TensorOf& tensor_of) {
  std::vector<Hole> out;
  const int64_t begin = group.rank * group.partition, end = begin + group.partition;
  for (const FlatParameter& p : group.parameters) {
    const int64_t from = std::max(begin, p.at), to = std::min(end, p.at + p.numel);
    if (from >= to) continue;
    const uint32_t tensor = tensor_of(target.parameters.at(p.name));
    Hole hole = target.book.range(tensor, p.first + from - p.at, to - from);
    hole.offset = (from - begin) * unit_size(hole.dtype);
    out.push_back(hole);
  }
  return out;
}

// The share that a rank has of each parameter of a sub-group.
std::vector<Hole> ranges3(const TargetCheckpoint& target, const FlatGroup& group, int64_t data_rank,
                          const TensorOf& tensor_of) {
  std::vector<Hole> out;
  for (const FlatParameter& p : group.parameters) {
    const int64_t share = share_of(target, p.numel), from = data_rank * share;
    const int64_t count = std::clamp<int64_t>(p.numel - from, 0, share);
    if (count == 0) continue;
    const uint32_t tensor = tensor_of(target.parameters.at(p.name));
    Hole hole = target.book.range(tensor, from, count);
    hole.offset = p.at * unit_size(hole.dtype);
    out.push_back(hole);
  }
  return out;
}

DType dtype_of(const TargetCheckpoint& target, const FlatGroup& group, const TensorOf& tensor_of) {
  const Catalog& catalog = target.parameters.catalog();
  if (group.parameters.empty()) return DType::kF32;  // this rank has none of them
  const DType dtype =
      optimizer_dtype(catalog.tensors[tensor_of(target.parameters.at(group.parameters.front().name))]);
  for (const FlatParameter& p : group.parameters) {
    const Tensor& t = catalog.tensors[tensor_of(target.parameters.at(p.name))];
    if (optimizer_dtype(t) != dtype)
      throw refused("deepspeed.dtypes", "the parameters of one optimizer group have states of several types")
          .in_file(catalog.path)
          .in_tensor(t.path());
  }
  return dtype;
}

const TensorOf kMasterOf = [](const Named& n) { return *n.master; };
TensorOf state_of(const std::string& state) {
  return [state](const Named& n) { return n.states.at(state); };
}

// {'state': {number: {…}}, 'param_groups': […]}. `flat` writes a group's buffer of one state.
// Of each optimizer group `params` says which of `groups` it is.
using Params = std::vector<std::pair<size_t, std::vector<int64_t>>>;
void write_base_state(OutputPickle& file, const TargetCheckpoint& target,
                      const std::vector<FlatGroup>& groups, const Params& params,
                      const std::function<void(const FlatGroup&, const TensorOf&)>& flat) {
  pickle::Pickler& out = file.out();
  out.begin_dict();
  out.text("state");
  out.begin_dict();
  for (size_t g = 0; g < groups.size(); ++g) {
    const auto& parameters = groups[g].parameters;
    std::vector<std::pair<std::string, bool>> states = state_order(target);
    std::erase_if(states, [&](const auto& s) { return !has_state(target, s.first, s.second, parameters); });
    if (states.empty()) continue;
    out.integer(static_cast<int64_t>(g));
    out.begin_dict();
    for (const auto& [state, is_cut] : states) {
      out.text(state);
      if (is_cut) {
        flat(groups[g], state_of(state));
      } else {
        write_number(file, target, state, parameters);
      }
    }
    out.end_dict();
  }
  out.end_dict();
  out.text("param_groups");
  out.begin_list();
  for (const auto& [group, numbers] : params) write_group_options(file, target, group, numbers);
  out.end_list();
  out.end_dict();
}

std::string file_name(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank) {
  return cat(target.folder, target.is_bf16 ? "bf16_" : "", "zero_pp_rank_", data_rank, "_mp_rank_",
             model_rank < 10 ? "0" : "", model_rank, "_optim_states.pt");
}

void write_slice_mappings(OutputPickle& file, const FlatGroup& group) {
  pickle::Pickler& out = file.out();
  const int64_t begin = group.rank * group.partition, end = begin + group.partition;
  out.begin_dict(pickle::DictType::kOrderedDict);
  for (const FlatParameter& p : group.parameters) {
    const int64_t from = std::max(begin, p.at), to = std::min(end, p.at + p.numel);
    if (from >= to) continue;
    out.text(p.local_name);
    out.begin_object();
    out.global("deepspeed.utils.tensor_fragment", "fragment_address");
    out.begin_tuple(0);
    out.end_tuple();
    out.state();
    out.begin_dict();
    file.entry("numel", to - from);
    file.entry("start", from - begin);
    out.end_dict();
    out.end_object();
  }
  out.end_dict();
}

template <class Numbers>
void write_integers(OutputPickle& file, std::string_view key, const Numbers& numbers) {
  if (!key.empty()) file.key(key);
  file.out().begin_list();
  for (const int64_t n : numbers) file.out().integer(n);
  file.out().end_list();
}

// What stands around the state, in every optimizer file.
void write_file(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank,
                const std::function<void(OutputPickle&)>& write_state) {
  OutputPickle file(target.book, file_name(target, model_rank, data_rank));
  pickle::Pickler& out = file.out();
  out.begin_dict();
  out.text("optimizer_state_dict");
  out.begin_dict();
  write_state(file);
  out.end_dict();
  write_ds_config(file, target);
  out.text("ds_version"), out.text(target.ds_version);
  out.end_dict();
  file.finish();
}

}  // namespace

void add_optimizer_file12(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank) {
  const std::vector<FlatGroup> groups = flat_groups(target, model_rank, data_rank);
  Params params;
  for (size_t g = 0; g < groups.size(); ++g) params.push_back({groups[g].group, {static_cast<int64_t>(g)}});
  const bool own_padding = target.is_bf16_optimizer();
  write_file(target, model_rank, data_rank, [&](OutputPickle& file) {
    pickle::Pickler& out = file.out();
    if (!own_padding) write_scaler(file, target);
    write_clip_grad(file, target);
    out.text("base_optimizer_state");
    write_base_state(file, target, groups, params, [&](const FlatGroup& g, const TensorOf& of) {
      file.flat(dtype_of(target, g, of), g.partition, g.partition, ranges12(target, g, of));
    });
    out.text("single_partition_of_fp32_groups");
    out.begin_list();
    for (const FlatGroup& g : groups) {
      const int64_t shown = g.partition - (own_padding ? 0 : g.padding());
      file.flat(dtype_of(target, g, kMasterOf), g.partition, shown, ranges12(target, g, kMasterOf), true);
    }
    out.end_list();
    if (!own_padding) {
      out.text("zero_stage");
      file.enumerator("deepspeed.runtime.zero.config", "ZeroStageEnum", target.stage);
    }
    std::vector<int64_t> paddings, counts;
    for (const FlatGroup& g : groups) {
      counts.push_back(g.ranks);
      const int64_t at_the_end = g.rank + 1 < g.ranks ? 0 : g.partition * g.ranks - g.used;
      paddings.push_back(own_padding ? at_the_end : g.padding());
    }
    write_integers(file, "group_paddings", paddings);
    if (!own_padding) {
      out.text("param_alignment_paddings");
      out.begin_list();
      for (const FlatGroup& g : groups) {
        std::vector<int64_t> fillers;
        for (const FlatParameter& p : g.parameters) fillers.push_back(p.filler);
        write_integers(file, "", fillers);
      }
      out.end_list();
    }
    write_integers(file, "partition_count", counts);
    out.text("ds_version"), out.text(target.ds_version);
    out.text("param_slice_mappings");
    out.begin_list();
    for (const FlatGroup& g : groups) write_slice_mappings(file, g);
    out.end_list();
  });
}

void add_optimizer_file3(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank) {
  const std::vector<FlatGroup> groups = sub_groups(target);
  Params params(target.parameters.groups().size());
  for (size_t g = 0; g < params.size(); ++g) params[g].first = g;
  for (size_t i = 0; i < groups.size(); ++i)
    params[groups[i].group].second.push_back(static_cast<int64_t>(i));
  write_file(target, model_rank, data_rank, [&](OutputPickle& file) {
    pickle::Pickler& out = file.out();
    out.text("zero_stage");
    file.enumerator("deepspeed.runtime.zero.config", "ZeroStageEnum", target.stage);
    write_scaler(file, target);
    // Where the configuration tells it, stage 3 keeps none, as DeepSpeed has it.
    if (!target.source.config_number("", "gradient_clipping")) write_kept_clip_grad(file, target);
    file.entry("partition_count", target.dp);
    out.text("optimizer_state_dict");
    const auto flat = [&](const FlatGroup& g, const TensorOf& of, bool requires_grad) {
      file.flat(dtype_of(target, g, of), g.partition, g.partition, ranges3(target, g, data_rank, of),
                requires_grad);
    };
    write_base_state(file, target, groups, params,
                     [&](const FlatGroup& g, const TensorOf& of) { flat(g, of, false); });
    out.text("fp32_flat_groups");
    out.begin_list();
    for (const FlatGroup& g : groups) flat(g, kMasterOf, true);
    out.end_list();
  });
}

}  // namespace uckpt::deepspeed
