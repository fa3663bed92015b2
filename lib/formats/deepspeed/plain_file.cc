// A torch optimizer's state_dict, as it stands in a model file or an expp_rank file when there is no ZeRO.
#include "lib/base/text.h"
#include "lib/formats/deepspeed/model_file.h"

namespace uckpt::deepspeed {

using pickle::Value;

std::vector<int64_t> read_integers(const Value& value) {
  std::vector<int64_t> out;
  for (size_t i = 0; value && value.is_sequence() && i < value.size(); ++i) {
    const auto n = value.at(i).integer();
    if (!n) throw refused("deepspeed.malformed", "expected a list of whole numbers");
    out.push_back(*n);
  }
  return out;
}

OptimizerGroup read_optimizer_group(const torch::TorchFile& file, const Source& source, const Value& value) {
  if (!value || !value.is_dict())
    throw refused("deepspeed.malformed", "expected param_groups to be a list of dicts");
  OptimizerGroup group;
  group.moe = value.get("moe").boolean().value_or(false);
  if (const auto name = value.get("name").text()) group.name = *name;
  group.params = read_integers(value.get("params"));
  if (const Value step = value.get("step")) {
    group.step = scalar_of(step);
    if (!group.step) {
      if (const auto info = file.tensor(step)) group.step = source.read_scalar(file, *info);
    }
  }
  const Value names = value.get("param_names");
  for (size_t i = 0; names && names.is_sequence() && i < names.size(); ++i) {
    if (const auto name = names.at(i).text()) group.param_names.emplace_back(*name);
  }
  return group;
}

namespace {

std::vector<PlainState> read_entry(const torch::TorchFile& file, Source& source, const Value& entry) {
  std::vector<PlainState> out;
  for (size_t i = 0; entry.is_dict() && i < entry.size(); ++i) {
    const auto [key, value] = entry.entry(i);
    if (!key.text()) continue;
    PlainState state;
    state.name = *key.text();
    state.scalar = scalar_of(value);
    if (auto info = file.tensor(value)) {
      state.is_tensor = true;
      if (info->refusal.empty() && info->numel() == 1) state.scalar = source.read_scalar(file, *info);
      source.keep(file, *info);
      state.info = std::move(*info);
    }
    if (state.is_tensor || state.scalar) out.push_back(std::move(state));
  }
  return out;
}

void read_masters(const torch::TorchFile& file, Source& source, const Value& wrapper, PlainOptimizer& out) {
  const Value flat = wrapper.get("fp32_groups_flat");
  for (size_t i = 0; flat && flat.is_sequence() && i < flat.size(); ++i) {
    auto info = file.tensor(flat.at(i));
    if (!info) throw refused("deepspeed.malformed", "expected fp32_groups_flat to be a list of tensors");
    out.flat_masters.push_back(source.place_of(file, std::move(*info)));
  }
  const Value groups = wrapper.get("fp32_groups");
  for (size_t g = 0; groups && groups.is_sequence() && g < groups.size(); ++g) {
    auto& list = out.masters.emplace_back();
    for (size_t i = 0; i < groups.at(g).size(); ++i) {
      auto info = file.tensor(groups.at(g).at(i));
      if (!info) throw refused("deepspeed.malformed", "expected fp32_groups to be lists of tensors");
      source.keep(file, *info);
      list.push_back(std::move(*info));
    }
  }
}

}  // namespace

PlainOptimizer read_plain_optimizer(const torch::TorchFile& file, Source& source, const Value& value) {
  PlainOptimizer out;
  read_masters(file, source, value, out);
  Value inner = value.get("optimizer_state_dict");
  if (!inner || !inner.is_dict()) inner = value;
  const Value groups = inner.get("param_groups");
  for (size_t i = 0; groups && groups.is_sequence() && i < groups.size(); ++i) {
    out.groups.push_back(read_optimizer_group(file, source, groups.at(i)));
  }
  const Value state = inner.get("state");
  for (size_t i = 0; state && state.is_dict() && i < state.size(); ++i) {
    const auto [key, entry] = state.entry(i);
    if (!key.integer()) throw refused("deepspeed.malformed", "expected the optimizer's state to be numbered");
    out.state.emplace(*key.integer(), read_entry(file, source, entry));
  }
  return out;
}

}  // namespace uckpt::deepspeed
