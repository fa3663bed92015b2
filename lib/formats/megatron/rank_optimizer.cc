#include "lib/formats/megatron/rank_optimizer.h"

#include "lib/base/text.h"
#include "lib/pickle/document.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

std::optional<DType> dtype_of(const Value& value) {
  const pickle::Global* global =
      pickle::known_of(value) == pickle::Known::kDtype ? pickle::global_of(value) : nullptr;
  return global ? global->dtype : std::nullopt;
}

std::optional<Scalar> number_of(const torch::TorchFile& file, const Source& source, const Value& value) {
  if (!value) return std::nullopt;
  if (auto scalar = deepspeed::scalar_of(value)) return scalar;
  const auto info = file.tensor(value);
  const bool fits = info && info->refusal.empty() && info->numel() == 1 && item_size(info->dtype) > 0 &&
                    info->flags == kPlain;
  return fits ? std::optional(source.read_scalar(file, *info)) : std::nullopt;
}

OptimizerGroup read_group(const torch::TorchFile& file, const Source& source, const Value& value) {
  if (!value.is_dict()) throw malformed("expected param_groups to be a list of dicts");
  OptimizerGroup out;
  Value decay = value.get("wd_mult");
  if (!decay) decay = value.get("weight_decay");
  if (decay && decay.number()) out.decays = *decay.number() != 0;
  if (const Value lr = value.get("is_decoupled_lr")) out.decoupled = lr.boolean();
  out.step = number_of(file, source, value.get("step"));
  const Value params = value.get("params");
  for (size_t i = 0; params && params.is_sequence() && i < params.size(); ++i) {
    const auto n = params.at(i).integer();
    if (!n) throw malformed("expected the parameters of a group to be whole numbers");
    out.params.push_back(*n);
  }
  return out;
}

std::vector<NumberedState> read_states(const torch::TorchFile& file, Source& source, const Value& entry) {
  std::vector<NumberedState> out;
  for (size_t i = 0; entry.is_dict() && i < entry.size(); ++i) {
    const auto [key, value] = entry.entry(i);
    if (!key.text()) continue;
    NumberedState state;
    state.name = *key.text();
    state.number = number_of(file, source, value);
    if (auto info = file.tensor(value)) {
      source.keep(file, *info);
      state.info = std::move(*info);
    }
    if (state.info || state.number) out.push_back(std::move(state));
  }
  return out;
}

void read_masters(const torch::TorchFile& file, Source& source, const Value& groups, OptimizerEntry& out) {
  if (!groups.is_sequence()) throw malformed("expected fp32_from_fp16_params to be lists of tensors");
  out.has_masters = true;
  for (size_t g = 0; g < groups.size(); ++g) {
    auto& list = out.masters.emplace_back();
    const Value group = groups.at(g);
    for (size_t i = 0; group.is_sequence() && i < group.size(); ++i) {
      auto info = file.tensor(group.at(i));
      if (!info) throw malformed("expected fp32_from_fp16_params to be lists of tensors");
      source.keep(file, *info);
      list.push_back(std::move(*info));
    }
  }
}

// The torch optimizer's own state_dict: a wrapper has it under `optimizer`.
Value inner_of(const Value& entry) {
  const Value inner = entry.get("optimizer");
  return inner && inner.is_dict() ? inner : entry;
}

OptimizerEntry read_entry(const torch::TorchFile& file, Source& source, const Value& entry) {
  OptimizerEntry out;
  for (const std::string_view key : {"fp32_from_fp16_params", "fp32_from_fp16"}) {
    const Value masters = entry.get(key);
    if (masters && !masters.is_none() && !out.has_masters) read_masters(file, source, masters, out);
  }
  const Value inner = inner_of(entry), groups = inner.get("param_groups"), states = inner.get("state");
  for (size_t i = 0; groups && groups.is_sequence() && i < groups.size(); ++i)
    out.groups.push_back(read_group(file, source, groups.at(i)));
  for (size_t i = 0; states && states.is_dict() && i < states.size(); ++i) {
    const auto [key, value] = states.entry(i);
    if (!key.integer()) throw malformed("expected the optimizer's states to be numbered");
    out.states.emplace(*key.integer(), read_states(file, source, value));
  }
  return out;
}

Place flat_array(const torch::TorchFile& file, Source& source, const Value& value, std::string_view key) {
  auto info = file.tensor(value);
  if (!info) throw malformed(cat("expected the optimizer's `", escape(key, 60), "` to be a tensor"));
  if (info->shape.size() != 1 || !info->contiguous() || !info->refusal.empty() ||
      item_size(info->dtype) == 0) {
    throw malformed(cat("expected the optimizer's `", escape(key, 60), "` to be a flat array, found ",
                        info->refusal.empty() ? shape_text(info->shape) : info->refusal));
  }
  return source.place_of(file, std::move(*info));
}

FlatBuffer read_buffer(const torch::TorchFile& file, Source& source, const Value& key, const Value& value) {
  FlatBuffer out;
  out.dtype = key.is_sequence() && key.size() > 0 ? dtype_of(key.at(0)) : std::nullopt;
  if (!value.is_dict()) throw malformed("expected a dict of flat arrays for each type of parameters");
  for (size_t i = 0; i < value.size(); ++i) {
    const auto [name, array] = value.entry(i);
    if (!name.text()) continue;
    if (name.text() == "numel_unpadded") {
      out.numel_unpadded = array.integer();
      continue;
    }
    if (array.is_sequence()) {
      auto& places = out.states.emplace_back(std::string(*name.text()), std::vector<Place>()).second;
      for (size_t b = 0; b < array.size(); ++b)
        places.push_back(flat_array(file, source, array.at(b), *name.text()));
    } else if (!array.integer()) {
      out.is_coalesced = true;
      out.states.push_back({std::string(*name.text()), {flat_array(file, source, array, *name.text())}});
    }
  }
  for (const auto& [name, places] : out.states) {
    if (places.size() == out.states.front().second.size()) continue;
    throw malformed(cat("expected as many arrays of ", escape(name, 60), " as of ",
                        escape(out.states.front().first, 60)));
  }
  return out;
}

// Buffers count from 0; each has one type of parameters.
FlatOptimizer read_flat(const torch::TorchFile& file, Source& source, const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (!value.is_dict()) throw malformed("expected a dict of buffers for each optimizer");
  std::vector<FlatBuffer> out;
  for (int64_t b = 0;; ++b) {
    const Value types = value.get_int(b);
    if (!types) break;
    if (!types.is_dict()) throw malformed(cat("expected buffer ", b, " to be a dict"));
    for (size_t i = 0; i < types.size(); ++i)
      out.push_back(read_buffer(file, source, types.entry(i).first, types.entry(i).second));
  }
  size_t numbers = 0;
  for (size_t i = 0; i < value.size(); ++i) numbers += value.entry(i).first.integer() ? 1 : 0;
  if (numbers > out.size()) throw malformed("expected the buffers to be numbered from 0 without a gap");
  return out;
}

}  // namespace

std::vector<Value> optimizer_entries(const Value& root) {
  const Value value = root.get("optimizer");
  std::vector<Value> out;
  if (!value || value.is_none()) return out;
  if (value.is_dict()) return {value};
  for (size_t i = 0; value.is_sequence() && i < value.size(); ++i) out.push_back(value.at(i));
  return out;
}

std::vector<OptimizerEntry> read_optimizers(const torch::TorchFile& file, Source& source, const Value& root) {
  std::vector<OptimizerEntry> out;
  for (const Value& entry : optimizer_entries(root)) {
    if (!entry.is_dict()) throw malformed("expected `optimizer` to be a dict or a list of dicts");
    out.push_back(read_entry(file, source, entry));
  }
  return out;
}

std::vector<FlatOptimizer> read_flat_optimizers(const torch::TorchFile& file, Source& source) {
  const Value root = file.root();
  std::vector<FlatOptimizer> out;
  if (!root.is_sequence()) return {read_flat(file, source, root)};
  for (size_t i = 0; i < root.size(); ++i) out.push_back(read_flat(file, source, root.at(i)));
  return out;
}

std::string view_of_optimizers(const torch::TorchFile& file, const Value& root) {
  const auto view = [&](const Value& entry) {
    if (!entry.is_dict()) return file.json(entry);
    return deepspeed::view_of(file, entry,
                              [&](std::string_view key, const Value& value) -> std::optional<std::string> {
                                if (key.starts_with("fp32_from_fp16")) return "";
                                if (key == "optimizer" && value.is_dict())
                                  return deepspeed::view_of_optimizer(file, value);
                                return std::nullopt;
                              });
  };
  const Value value = root.get("optimizer");
  if (value.is_dict())
    return inner_of(value) == value ? deepspeed::view_of_optimizer(file, value) : view(value);
  if (!value.is_sequence()) return file.json(value);
  std::string out = "[";
  for (size_t i = 0; i < value.size(); ++i) out += cat(i ? "," : "", view(value.at(i)));
  return out + ']';
}

}  // namespace uckpt::megatron
