// Parts that several of a target's pickles have.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

using pickle::Kind;
using pickle::Value;

namespace {

bool is_number(const Value& value) { return value && (value.integer() || value.real() || value.boolean()); }

// The options of torch's AdamW, for a source that keeps none.
void write_default_options(pickle::Pickler& out, double lr) {
  const auto real = [&](std::string_view key, double value) { out.text(key), out.real(value); };
  const auto flag = [&](std::string_view key, bool value) { out.text(key), out.boolean(value); };
  real("lr", lr);
  out.text("betas");
  out.begin_tuple(2);
  out.real(0.9);
  out.real(0.999);
  out.end_tuple();
  real("eps", 1e-8);
  real("weight_decay", 0.01);
  flag("amsgrad", false);
  flag("maximize", false);
  out.text("foreach"), out.none();
  flag("capturable", false);
  flag("differentiable", false);
  out.text("fused"), out.none();
  flag("decoupled_weight_decay", true);
}

pickle::Pickler::Replace kept_tensors(OutputPickle& file, const TargetCheckpoint& target) {
  return [&file, &target](const Value& node, pickle::Pickler&) {
    const auto place = target.source.tensor_place(node);
    if (!place) return false;
    const auto index = target.parameters.loose(place->file, place->path);
    const Catalog& catalog = target.parameters.catalog();
    if (!index) throw unselected_option("deepspeed.option", catalog, place->path);
    const Tensor& tensor = catalog.tensors[*index];
    file.tensor(target.book.whole(*index, tensor.dtype), tensor.shape);
    return true;
  };
}

// As it was read; the tensors in it lie in the catalog.
void copy_kept(OutputPickle& file, const TargetCheckpoint& target, const Value& value) {
  file.out().copy(value, kept_tensors(file, target));
}

// A group of experts is named after the ranks that share them; `ep` is 0 where these are not known.
void write_expert_options(OutputPickle& file, const TargetCheckpoint& target, const Value& options,
                          int64_t ep) {
  pickle::Pickler& out = file.out();
  for (size_t i = 0; i < options.size(); ++i) {
    const auto [key, value] = options.entry(i);
    const std::string_view text = key.text().value_or("");
    if (text == "params" || text == "param_names" || (text == "name" && ep == 0)) continue;
    out.copy(key);
    text == "name" ? out.text(cat("ep_size_", ep)) : copy_kept(file, target, value);
  }
}

bool is_fp16(const TargetCheckpoint& target) {
  for (const Named& n : target.parameters.all())
    if (n.is_trained() && n.module_dtype == DType::kF16) return true;
  return false;
}

// An engine keeps its own scaler where the file has none, but for stage 3, which wants one. A constant scale
// is right where nothing is scaled.
bool leaves_out_scaler(const TargetCheckpoint& target) {
  if (entry(target.source.zero_state(), "loss_scaler") || !is_fp16(target) ||
      entry(target.source.wrapper(), "cur_scale"))
    return false;
  if (target.stage == 3)
    throw refused("deepspeed.scaler", "it keeps no loss scale, which a checkpoint of stage 3 in fp16 has")
        .in_file(target.parameters.catalog().path)
        .hint("--dtype bf16 or fp32 needs none, nor do stages 1 and 2");
  return true;
}

void write_scaler_object(OutputPickle& file, std::string_view cls, const std::function<void()>& fields) {
  pickle::Pickler& out = file.out();
  out.begin_object();
  out.global("deepspeed.runtime.fp16.loss_scaler", cls);
  out.begin_tuple(0);
  out.end_tuple();
  out.state();
  out.begin_dict();
  fields();
  out.end_dict();
  out.end_object();
}

// The wrapper of fp16 weights counts as the scaler objects of ZeRO do, from the same options. It knows no
// hysteresis: that begins anew.
void write_scaler_of_wrapper(OutputPickle& file, const TargetCheckpoint& target, const Value& wrapper) {
  const bool is_dynamic = entry(wrapper, "dynamic_loss_scale").boolean().value_or(false);
  const auto kept = [&](std::string_view key) {
    file.key(key);
    copy_kept(file, target, wrapper.get(key));
  };
  const auto configured = [&](std::string_view key, int64_t otherwise) {
    const auto value = target.source.config_number("fp16", key);
    return value && std::abs(*value) < 1e15 ? static_cast<int64_t>(*value) : otherwise;
  };
  write_scaler_object(file, is_dynamic ? "DynamicLossScaler" : "LossScaler", [&] {
    pickle::Pickler& out = file.out();
    kept("cur_scale");
    file.key("dynamic"), out.boolean(is_dynamic);
    if (!is_dynamic) return;
    for (const std::string_view key : {"cur_iter", "last_overflow_iter", "scale_factor", "scale_window"}) {
      if (!wrapper.get(key))
        throw refused("deepspeed.scaler", cat("its dynamic loss scale has no ", key))
            .in_file(target.parameters.catalog().path);
      kept(key);
    }
    const int64_t shift = configured("hysteresis", 2);
    file.entry("min_scale", configured("min_loss_scale", 1));
    file.entry("delayed_shift", shift);
    file.entry("cur_hysteresis", shift);
    file.key("consecutive_hysteresis"),
        out.boolean(target.source.config_flag("fp16", "consecutive_hysteresis"));
    file.key("raise_error_at_min_scale"), out.boolean(true);
    file.key("dtype"), out.global("torch", "float16");
  });
}

}  // namespace

// What decides it in DeepSpeed's engine: bf16 at stage 1, with gradients that are accumulated in fp32.
bool TargetCheckpoint::is_bf16_optimizer() const {
  return is_bf16 && stage == 1 && source.config_text("data_types", "grad_accum_dtype") == "fp32";
}

void write_ds_config(OutputPickle& file, const TargetCheckpoint& target) {
  pickle::Pickler& out = file.out();
  const Value config = target.source.ds_config();
  out.text("ds_config");
  if (!config || !config.is_dict()) {
    out.begin_dict();
    out.text("zero_optimization");
    out.begin_dict();
    file.entry("stage", target.stage);
    out.end_dict();
    if (target.is_bf16) {
      out.text("bf16");
      out.begin_dict();
      out.text("enabled"), out.boolean(true);
      out.end_dict();
    }
    out.end_dict();
    return;
  }
  const auto stage = target.source.config_number("zero_optimization", "stage");
  if (!stage || *stage == target.stage) return out.copy(config);
  out.begin_dict_like(config);
  for (size_t i = 0; i < config.size(); ++i) {
    const auto [key, value] = config.entry(i);
    out.copy(key);
    if (key.text() != "zero_optimization") {
      out.copy(value);
      continue;
    }
    out.begin_dict_like(value);
    for (size_t j = 0; j < value.size(); ++j) {
      const auto [inner, setting] = value.entry(j);
      out.copy(inner);
      inner.text() == "stage" ? out.integer(target.stage) : out.copy(setting);
    }
    out.end_dict();
  }
  out.end_dict();
}

void write_group_options(OutputPickle& file, const TargetCheckpoint& target, size_t group,
                         const std::vector<int64_t>& params) {
  pickle::Pickler& out = file.out();
  const auto& [names, options, ep] = target.parameters.groups()[group];
  out.begin_dict();
  if (options && ep > 0) {
    write_expert_options(file, target, options, target.is_universal ? 0 : ep);
  } else if (options) {
    out.copy_entries(options, {"params", "param_names"}, kept_tensors(file, target));
  } else {
    write_default_options(out, target.source.scheduled_rate(group).value_or(1e-3));
    if (ep > 0) {
      out.text("name"), out.text(cat("ep_size_", ep));
      out.text("moe"), out.boolean(true);
    }
  }
  out.text("params");
  out.begin_list();
  for (const int64_t p : params) out.integer(p);
  out.end_list();
  out.end_dict();
}

void write_scaler(OutputPickle& file, const TargetCheckpoint& target) {
  if (leaves_out_scaler(target)) return;
  pickle::Pickler& out = file.out();
  const Value state = target.source.zero_state(), scaler = entry(state, "loss_scaler");
  const Value wrapper = !scaler && is_fp16(target) ? target.source.wrapper() : Value();
  out.text("loss_scaler");
  if (scaler) {
    copy_kept(file, target, scaler);
  } else if (entry(wrapper, "cur_scale")) {
    write_scaler_of_wrapper(file, target, wrapper);
  } else {
    write_scaler_object(file, "LossScaler", [&] {
      out.text("cur_scale"), out.real(1.0);
      out.text("dynamic"), out.boolean(false);
    });
  }
  for (const std::string_view key : {"dynamic_loss_scale", "overflow"}) {
    out.text(key);
    const Value known = entry(state, key), value = known ? known : entry(wrapper, key);
    value ? copy_kept(file, target, value) : out.boolean(false);
  }
}

bool write_kept_clip_grad(OutputPickle& file, const TargetCheckpoint& target) {
  const Value own = entry(target.source.zero_state(), "clip_grad"),
              clip = own ? own : entry(target.source.wrapper(), "clip_grad");
  if (!clip) return false;
  file.key("clip_grad");
  copy_kept(file, target, clip);
  return true;
}

void write_clip_grad(OutputPickle& file, const TargetCheckpoint& target) {
  const auto configured = target.source.config_number("", "gradient_clipping");
  if (write_kept_clip_grad(file, target) || !configured) return;
  file.key("clip_grad");
  file.out().real(*configured);
}

bool has_state(const TargetCheckpoint& target, const std::string& state, bool is_cut,
               const std::vector<FlatParameter>& parameters) {
  const FlatParameter *with = nullptr, *without = nullptr;
  for (const FlatParameter& p : parameters) {
    const Named& n = target.parameters.at(p.name);
    ((is_cut ? n.states : n.numbers).contains(state) ? with : without) = &p;
  }
  if (with && without)
    throw refused("deepspeed.no_state", cat("it has no ", is_cut ? "" : "number ", escape(state), ", which ",
                                            escape(with->name, 100), " of the same optimizer group has"))
        .in_file(target.parameters.catalog().path)
        .in_tensor(without->name)
        .hint("--missing zero writes it as zeros, where it begins so");
  return with != nullptr;
}

void write_number(OutputPickle& file, const TargetCheckpoint& target, const std::string& state,
                  const std::vector<FlatParameter>& parameters) {
  const Catalog& catalog = target.parameters.catalog();
  const uint32_t first = target.parameters.at(parameters.front().name).numbers.at(state);
  const Bytes& value = target.parameters.number(first);
  for (const FlatParameter& p : parameters) {
    const uint32_t other = target.parameters.at(p.name).numbers.at(state);
    if (target.parameters.number(other) != value)
      throw refused("deepspeed.step_disagrees",
                    cat("its ", escape(state), " differs from that of ", escape(parameters.front().name, 100),
                        ", and a DeepSpeed checkpoint keeps one for both"))
          .in_file(catalog.path)
          .in_tensor(p.name);
  }
  const Tensor& t = catalog.tensors[first];
  const Value entries = target.source.group_state();
  const Value seen = entries && entries.is_dict() ? entries.get(state) : Value();
  if (is_number(seen) && t.dtype == DType::kI64) return file.out().integer(load_le<int64_t>(value.data()));
  if (is_number(seen) && t.dtype == DType::kF64) return file.out().real(load_le<double>(value.data()));
  file.tensor(file.book().whole(first, t.dtype), t.shape);
}

std::vector<std::pair<std::string, bool>> state_order(const TargetCheckpoint& target) {
  std::vector<std::pair<std::string, bool>> out;
  for (const std::string& s : target.parameters.numbers())
    if (s == state::kStep) out.emplace_back(s, false);
  for (const std::string& s : target.parameters.states()) out.emplace_back(s, true);
  for (const std::string& s : target.parameters.numbers())
    if (s != state::kStep) out.emplace_back(s, false);
  return out;
}

}  // namespace uckpt::deepspeed
