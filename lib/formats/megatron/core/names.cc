#include "lib/formats/megatron/core/names.h"

#include <algorithm>
#include <charconv>

#include "lib/base/text.h"
#include "lib/ucl/name_pattern.h"

namespace uckpt::megatron {

namespace {

using Parts = std::vector<std::string_view>;

std::string join(std::span<const std::string_view> parts) {
  std::string out;
  for (const std::string_view p : parts) out += cat(out.empty() ? "" : ".", p);
  return out;
}

std::optional<int64_t> number(std::string_view text) {
  int64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  const bool plain = error == std::errc() && end == text.data() + text.size() && out >= 0;
  return plain && (text.size() == 1 || text[0] != '0') ? std::optional(out) : std::nullopt;
}

bool is_number_at(const Parts& parts, size_t i) { return i < parts.size() && number(parts[i]).has_value(); }

struct Renaming {
  std::string_view module, key;  // how a name begins below its layer
  bool is_written;               // else it is only read: of layers that these specs do not have
};

// Of layers without Transformer Engine.
constexpr Renaming kNorms[] = {
    {"input_layernorm.", "self_attention.linear_qkv.layer_norm_", true},
    {"pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_", true},
    {"input_layernorm.", "self_attention.layer_norm_", false},
    {"pre_mlp_layernorm.", "mlp.layer_norm_", false},
};

std::string renamed(std::string below, bool to_key) {
  for (const Renaming& r : kNorms) {
    const std::string_view from = to_key ? r.module : r.key, to = to_key ? r.key : r.module;
    if ((!to_key || r.is_written) && below.starts_with(from)) return cat(to, below.substr(from.size()));
  }
  return below;
}

// Where the layer's own names begin: behind the last `layers` and its number, if it has one, and the layer's
// name in a layer that predicts further tokens.
size_t below_layer(const Parts& parts) {
  for (size_t i = parts.size(); i-- > 0;) {
    if (parts[i] != "layers") continue;
    const size_t below = i + (is_number_at(parts, i + 1) ? 2 : 1);
    return below + (below < parts.size() && parts[below] == "transformer_layer" ? 1 : 0);
  }
  return parts.size();
}

std::string with_norms(std::string_view name, bool to_key) {
  const auto [layer, below] = split_layer(name);
  return layer.empty() ? std::string(name) : cat(layer, ".", renamed(below, to_key));
}

// Takes `head` and the number behind it off the front of `text`.
std::optional<int64_t> take_number(std::string_view& text, std::string_view head) {
  if (!text.starts_with(head)) return std::nullopt;
  const std::string_view rest = text.substr(head.size());
  size_t digits = 0;
  while (digits < rest.size() && rest[digits] >= '0' && rest[digits] <= '9') ++digits;
  const auto out = digits == 0 ? std::nullopt : number(rest.substr(0, digits));
  if (out) text = rest.substr(digits);
  return out;
}

// Which of several optimizers: "chained_1." before the key; the only one has no prefix.
int64_t take_optimizer(std::string_view& key) {
  std::string_view rest = key;
  const auto out = take_number(rest, "chained_");
  if (!out || !rest.starts_with('.')) return 0;
  key = rest.substr(1);
  return *out;
}

}  // namespace

LayerName split_layer(std::string_view name) {
  const Parts parts = ucl::split_name(name);
  const size_t below = below_layer(parts);
  if (below >= parts.size()) return {"", std::string(name)};
  return {join(std::span(parts).first(below)), join(std::span(parts).subspan(below))};
}

bool is_latent_attention(std::string_view below) { return below.starts_with("self_attention.linear_kv_"); }

NameStyle NameStyle::of(const Arguments& arguments) {
  NameStyle out;
  out.transformer_engine = arguments.text("transformer_impl") == "transformer_engine";
  out.grouped_experts = out.transformer_engine && arguments.truth("moe_grouped_gemm").value_or(false);
  return out;
}

std::string ModuleName::at(std::span<const int64_t> numbers) const {
  std::string out = parts.front();
  for (size_t i = 0; i + 1 < parts.size(); ++i) out += cat(numbers[i], parts[i + 1]);
  return out;
}

ModuleName module_name(std::string_view key, const NameStyle& style) {
  const std::string renamed = style.transformer_engine ? std::string(key) : with_norms(key, false);
  const Parts parts = ucl::split_name(renamed);
  ModuleName out;
  std::string text, number_at_end;  // the expert's number, where it comes last; "{}" for an open one
  const auto open = [&] {
    out.parts.push_back(std::move(text));
    text.clear();
  };
  const auto add = [&](std::string_view part) {
    text += cat(text.empty() && out.parts.empty() ? "" : ".", part);
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool has_number = is_number_at(parts, i + 1);
    if (parts[i] == "layers" && i + 1 < parts.size() && !has_number) {
      add(parts[i]);
      text += '.';
      open();
    } else if (parts[i] == "experts" && i > 0 && parts[i - 1] == "experts" && i + 1 < parts.size()) {
      if (style.grouped_experts) {
        number_at_end = has_number ? std::string(parts[++i]) : "{}";
        continue;
      }
      add("local_experts");
      if (has_number) continue;
      text += '.';
      open();
    } else {
      add(parts[i]);
    }
  }
  if (number_at_end == "{}")
    open();
  else
    text += number_at_end;
  out.parts.push_back(std::move(text));
  return out;
}

CoreKey core_key(std::string_view name, const NameStyle& style, bool stacked) {
  const std::string renamed = style.transformer_engine ? std::string(name) : with_norms(name, true);
  const Parts parts = ucl::split_name(renamed);
  CoreKey out;
  std::vector<std::string> kept;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool has_number = is_number_at(parts, i + 1);
    if (parts[i] == "layers" && has_number && stacked && (i == 0 || parts[i - 1] != "mtp")) {
      kept.emplace_back(parts[i++]);
      out.numbers.push_back(*number(parts[i]));
    } else if (parts[i] == "local_experts" && has_number) {
      kept.emplace_back("experts");
      out.numbers.push_back(*number(parts[++i]));
    } else if (style.grouped_experts && i + 3 == parts.size() && parts[i] == "experts") {
      // experts.linear_fc1.weight7
      const std::string_view last = parts[i + 2];
      const size_t digits = last.find_last_not_of("0123456789") + 1;
      const auto n = number(last.substr(digits));
      kept.emplace_back("experts");
      if (!n) continue;
      kept.emplace_back("experts");
      kept.emplace_back(parts[i + 1]);
      kept.emplace_back(last.substr(0, digits));
      out.numbers.push_back(*n);
      break;
    } else {
      kept.emplace_back(parts[i]);
    }
  }
  for (const std::string& p : kept) out.key += cat(out.key.empty() ? "" : ".", p);
  return out;
}

std::string state_of(std::string_view state) {
  return std::string(state == "param" || state == "fp32_param" ? state::kMaster : state);
}

std::optional<StateKey> parse_state_key(std::string_view key) {
  constexpr std::string_view kHead = "optimizer.state.";
  (void)take_optimizer(key);
  if (!key.starts_with(kHead)) return std::nullopt;
  key.remove_prefix(kHead.size());
  const size_t dot = key.find('.');
  if (dot == 0 || dot == std::string_view::npos || dot + 1 == key.size()) return std::nullopt;
  return StateKey{state_of(key.substr(0, dot)), std::string(key.substr(dot + 1))};
}

std::optional<BucketKey> parse_bucket_key(std::string_view key) {
  BucketKey out;
  out.optimizer = take_optimizer(key);
  const auto group = take_number(key, "optimizer.distributed.dp_group_idx_");
  const auto buffer = group ? take_number(key, ".gbuf_idx_") : std::nullopt;
  const size_t end = key.find(".bucket_idx_");
  if (!buffer || !key.starts_with(".dtype_") || end == std::string_view::npos) return std::nullopt;
  out.dtypes = key.substr(7, end - 7);
  key.remove_prefix(end);
  const auto bucket = take_number(key, ".bucket_idx_");
  if (!bucket || key.size() < 2 || key[0] != '.') return std::nullopt;
  out.group = *group, out.buffer = *buffer, out.bucket = *bucket;
  out.state = state_of(key.substr(1));
  return out;
}

std::optional<GroupKey> parse_group_key(std::string_view key) {
  GroupKey out;
  out.optimizer = take_optimizer(key);
  const auto group = take_number(key, "optimizer.distributed.dp_group_idx_");
  if (!group || !key.starts_with('.')) return std::nullopt;
  out.group = *group;
  out.name = key.substr(1, key.find('/') - 1);
  return out;
}

bool is_expert(std::string_view name) {
  const Parts parts = ucl::split_name(name);
  return std::ranges::find(parts, "experts") != parts.end();
}

}  // namespace uckpt::megatron
