#include "lib/formats/deepspeed/optimizer_file.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/pickle/value_text.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// What says how the flat buffers are cut: the catalog holds it in another form, and it differs between ranks.
constexpr std::string_view kLayout[] = {
    "param_slice_mappings", "group_paddings",  "param_alignment_paddings", "single_partition_of_fp32_groups",
    "fp32_flat_groups",     "partition_count", "ds_zero_partition_groups"};
// Where tensors of the layout lie; others are loose.
constexpr std::string_view kOptimizerStructure[] = {"param_slice_mappings", "single_partition_of_fp32_groups",
                                                    "fp32_flat_groups",     "base_optimizer_state",
                                                    "optimizer_state_dict", "base_optimizer_state_step"};

void read_flat_list(const torch::TorchFile& file, const Value& list, std::string_view what,
                    OptimizerFile& out) {
  if (!list.is_sequence())
    throw refused("deepspeed.malformed", cat("expected ", what, " to be a list of tensors"));
  for (size_t i = 0; i < list.size(); ++i) {
    auto info = file.tensor(list.at(i));
    if (!info) throw refused("deepspeed.malformed", cat("expected ", what, " to be a list of tensors"));
    out.groups.emplace_back().master = out.source.place_of(file, std::move(*info));
  }
}

void read_group_list(const torch::TorchFile& file, const Value& groups, OptimizerFile& out) {
  for (size_t i = 0; groups && groups.is_sequence() && i < groups.size(); ++i) {
    out.param_groups.push_back(read_optimizer_group(file, out.source, groups.at(i)));
  }
}

// {'state': {i: …}, 'param_groups': […]}: i is the group at stages 1 and 2, the sub-group at stage 3.
void read_base(const torch::TorchFile& file, const Value& base, OptimizerFile& out) {
  read_group_list(file, base.get("param_groups"), out);
  const Value state = base.get("state");
  if (!state || !state.is_dict()) return;
  for (size_t i = 0; i < state.size(); ++i) {
    const auto [key, entry] = state.entry(i);
    const auto number = key.integer();
    if (!number || *number < 0 || *number >= static_cast<int64_t>(out.groups.size())) {
      throw refused("deepspeed.malformed",
                    cat("expected the optimizer's state to be numbered up to ", out.groups.size(), ", found ",
                        escape(pickle::key_text(key), 40)));
    }
    out.groups[static_cast<size_t>(*number)].states = read_rank_states(file, out.source, entry);
  }
}

void read_elastic(const torch::TorchFile& file, const Value& list, OptimizerFile& out) {
  out.elastic = true;
  if (list.size() != out.groups.size()) {
    throw refused("deepspeed.malformed",
                  cat("expected ", out.groups.size(), " groups of states, found ", list.size()));
  }
  for (size_t i = 0; i < list.size(); ++i)
    out.groups[i].states = read_rank_states(file, out.source, list.at(i));
}

void read_mappings(const Value& mappings, bool whole, OptimizerFile& out) {
  for (size_t g = 0; mappings && mappings.is_sequence() && g < mappings.size(); ++g) {
    auto& list = out.mappings.emplace_back();
    const Value group = mappings.at(g);
    for (size_t i = 0; group.is_dict() && i < (whole ? group.size() : std::min<size_t>(1, group.size()));
         ++i) {
      const auto [name, address] = group.entry(i);
      const auto start = address.attribute("start").integer(), numel = address.attribute("numel").integer();
      if (name.text() && start && numel) list.push_back({std::string(*name.text()), *start, *numel});
    }
  }
}

void read_state(const torch::TorchFile& file, const Value& s, OptimizerFile& out) {
  out.zero_stage = read_stage(s.get("zero_stage"));
  out.has_partition_groups = s.get("ds_zero_partition_groups").size() > 0;
  if (const auto version = s.get("ds_version").text()) out.ds_version = *version;
  const Value count = s.get("partition_count");
  if (const auto n = count.integer()) out.partition_count = {*n};
  if (count && count.is_sequence()) out.partition_count = read_integers(count);
  if (const Value flat = s.get("fp32_flat_groups")) {
    read_flat_list(file, flat, "fp32_flat_groups", out);
    read_base(file, s.get("optimizer_state_dict"), out);
    return;
  }
  const Value flat = s.get("single_partition_of_fp32_groups");
  if (!flat)
    throw refused("deepspeed.malformed",
                  "expected flat fp32 weights, found none: not an optimizer file of ZeRO");
  read_flat_list(file, flat, "single_partition_of_fp32_groups", out);
  const Value base = s.get("base_optimizer_state");
  if (base && base.is_sequence()) {
    read_elastic(file, base, out);
  } else if (base) {
    read_base(file, base, out);
  }
  if (const Value step = s.get("base_optimizer_state_step")) {
    out.step = scalar_of(step);
    if (const auto info = out.step ? std::nullopt : file.tensor(step))
      out.step = out.source.read_scalar(file, *info);
  }
  out.paddings = read_integers(s.get("group_paddings"));
}

std::optional<uint64_t> content_of(const OptimizerFile& file) {
  uint64_t hash = 0;
  bool any = false;
  const auto mix = [&](const Place& place) {
    const auto part = place.numel > 1 ? file.source.fingerprint(place.record) : std::optional<uint64_t>(0);
    if (!part) return false;
    any |= place.numel > 1;
    hash = (hash ^ *part) * 0x9e3779b97f4a7c15 + (hash >> 29);
    return true;
  };
  for (const RankGroup& g : file.groups) {
    if (g.master && !mix(*g.master)) return std::nullopt;
    for (const RankState& s : g.states) {
      if (s.is_tensor && !mix(s.place)) return std::nullopt;
    }
  }
  return any ? std::optional(hash) : std::nullopt;
}

void compare(const OptimizerFile& reference, OptimizerFile& out) {
  const auto check = [&](std::string_view what, const std::string& expected, const std::string& found) {
    if (expected != found && !out.difference)
      out.difference = cat(what, ": expected ", expected, ", found ", found);
  };
  check("zero_stage", cat(reference.stage()), cat(out.stage()));
  check("ds_version", escape(reference.ds_version, 40), escape(out.ds_version, 40));
  check("partition_count", shape_text(reference.partition_count), shape_text(out.partition_count));
  check("number of groups", cat(reference.groups.size()), cat(out.groups.size()));
  check("optimizer state", reference.elastic ? "elastic" : "plain", out.elastic ? "elastic" : "plain");
}

std::string make_view(const torch::TorchFile& file, const Value& root) {
  return view_of(file, root, [&](std::string_view key, const Value& value) -> std::optional<std::string> {
    if (key != "optimizer_state_dict" || !value.is_dict()) return std::nullopt;
    return view_of_zero_state(file, value);
  });
}

void read_into(OptimizerFile& out, const OptimizerFile* reference, const OpenOptions& options) {
  const auto file = torch::TorchFile::open(out.source.bytes(), options.limits);
  const Value root = file->root();
  const Value s = root.get("optimizer_state_dict");
  if (!s || !s.is_dict()) {
    throw refused("deepspeed.malformed", "expected a dict with an optimizer_state_dict in an optimizer file");
  }
  out.refusal = file->refusal();
  out.globals = file->globals();
  out.pickle = file->pickle_record();
  read_state(*file, s, out);
  if (const Value zero = root.get("ds_config").get("zero_optimization"); zero && zero.is_dict()) {
    out.round_robin = zero.get("round_robin_gradients").boolean().value_or(false);
  }
  if (out.ds_version.empty()) out.ds_version = root.get("ds_version").text().value_or("");
  find_loose(*file, out.source, s, "optimizer_state_dict", kOptimizerStructure, out.loose);
  for (const std::string_view base : {"base_optimizer_state", "optimizer_state_dict"}) {
    constexpr std::string_view kState[] = {"state"};
    const Value inner = s.get(base);
    if (inner && inner.is_dict()) {
      find_loose(*file, out.source, inner, cat("optimizer_state_dict.", base), kState, out.loose);
    }
  }
  if (reference) {
    compare(*reference, out);
  } else {
    const Value alignment = s.get("param_alignment_paddings");
    for (size_t g = 0; alignment && g < alignment.size(); ++g) {
      out.alignment.push_back(read_integers(alignment.at(g)));
    }
  }
  // Without a stage (BF16_Optimizer) the lists may be all there is to tell names.
  read_mappings(s.get("param_slice_mappings"), !reference || !out.zero_stage, out);
  out.content = content_of(out);
  if (!options.want_objects) return;
  std::string view = make_view(*file, root);
  if (!reference || view != reference->view) out.view = std::move(view);
}

}  // namespace

std::optional<int> read_stage(const Value& value) {
  std::optional<int64_t> n = value.integer();
  // ZeroStageEnum(1): a call with one number.
  if (!n && value && value.args() && value.args().size() == 1) n = value.args().at(0).integer();
  if (!n || *n < 0 || *n > 3) return std::nullopt;
  return static_cast<int>(*n);
}

std::vector<RankState> read_rank_states(const torch::TorchFile& file, Source& source, const Value& entry) {
  std::vector<RankState> out;
  for (size_t i = 0; entry.is_dict() && i < entry.size(); ++i) {
    const auto [key, value] = entry.entry(i);
    if (!key.text()) continue;
    RankState state;
    state.name = *key.text();
    state.scalar = scalar_of(value);
    if (auto info = file.tensor(value)) {
      state.is_tensor = true;
      state.shape = info->shape;
      if (info->refusal.empty() && info->numel() == 1) state.scalar = source.read_scalar(file, *info);
      state.place = source.place_of(file, std::move(*info));
    }
    if (state.is_tensor || state.scalar) out.push_back(std::move(state));
  }
  return out;
}

std::string view_of_zero_state(const torch::TorchFile& file, const Value& state) {
  return view_of(file, state, [&](std::string_view key, const Value& value) -> std::optional<std::string> {
    if (std::find(std::begin(kLayout), std::end(kLayout), key) != std::end(kLayout)) return "";
    const bool base = key == "base_optimizer_state" || key == "optimizer_state_dict";
    if (base && value.is_dict()) return view_of_optimizer(file, value);
    if (!base || !value.is_sequence()) return std::nullopt;
    std::string out;  // elastic: numbers only, if there are any
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string rest = value.at(i).is_dict() ? view_without_tensors(file, value.at(i)) : "";
      if (!rest.empty()) out += cat(out.empty() ? "[" : ",", rest);
    }
    return out.empty() ? out : out + ']';
  });
}

OptimizerFile read_optimizer_file(const Folder& folder, const RankFile& file, const OptimizerFile* reference,
                                  const OpenOptions& options) {
  OptimizerFile out;
  try {
    out.source = Source(file.name, folder.files.open(file.name));
    read_into(out, reference, options);
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    out = OptimizerFile();
    out.damage = e.in_file(folder.files.join(file.name));
  }
  out.file = file;
  return out;
}

}  // namespace uckpt::deepspeed
