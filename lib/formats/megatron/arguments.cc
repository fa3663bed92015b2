#include "lib/formats/megatron/arguments.h"

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"
#include "lib/tensor/setting_lists.h"

namespace uckpt::megatron {

namespace {

constexpr int64_t kMostRanks = 1 << 20;  // more is a damaged number
constexpr size_t kMostItems = 1 << 18;   // a pickle can name one long list many times

std::optional<ModelSetting> number_or_truth(const pickle::Value& value) {
  if (const auto b = value.boolean()) return *b;
  if (const auto n = value.integer()) return *n;
  if (const auto r = value.real()) return *r;
  return std::nullopt;
}

std::optional<ModelSetting> setting_of(const pickle::Value& value) {
  if (const auto number = number_or_truth(value)) return number;
  if (const auto t = value.text()) {
    return value.has_surrogates() ? std::nullopt : std::optional<ModelSetting>(std::string(*t));
  }
  if (pickle::known_of(value) == pickle::Known::kDtype) {
    const pickle::Global* global = pickle::global_of(value);
    if (global && global->dtype) return std::string(name_of(*global->dtype));
  }
  return std::nullopt;
}

// Of a list: its numbers and truths, up to what is none. Texts are the run's own, such as where its data
// lies.
void add_items(std::string_view key, const pickle::Value& list, ModelSettings& out) {
  for (size_t i = 0; i < list.size(); ++i) {
    auto item = number_or_truth(list.at(i));
    if (!item) return;
    if (out.size() >= kMostItems)
      throw refused("megatron.arguments",
                    cat("args: expected at most ", kMostItems, " values, counting the items of lists"));
    out.emplace(item_key(key, i), std::move(*item));
  }
}

int64_t degree(const Arguments& arguments, std::string_view name, int64_t absent) {
  const int64_t n = arguments.number(name).value_or(absent);
  if (n >= 1 && n <= kMostRanks) return n;
  throw refused("megatron.arguments", cat("args.", name, ": expected 1 to ", kMostRanks, ", found ", n));
}

// A product that files or ranks are counted by.
int64_t product(int64_t a, int64_t b) {
  const auto n = checked_mul(a, b);
  if (n && *n <= kMostRanks) return *n;
  throw refused("megatron.arguments",
                cat("args: expected at most ", kMostRanks, " ranks, found ", a, " × ", b));
}

}  // namespace

Arguments Arguments::read(const pickle::Value& args) {
  Arguments out;
  if (!args) return out;
  const pickle::Value dict = args.is_dict() ? args : args.state();
  for (size_t i = 0; dict && dict.is_dict() && i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    if (!key.text() || key.has_surrogates()) continue;
    if (value.is_sequence()) add_items(*key.text(), value, out.settings_);
    if (auto setting = setting_of(value)) out.settings_.emplace(*key.text(), std::move(*setting));
  }
  if (out.truth("group_query_attention") == false) out.settings_.erase("num_query_groups");
  return out;
}

std::map<std::string, int64_t, std::less<>> Arguments::numbers() const {
  std::map<std::string, int64_t, std::less<>> out;
  for (const auto& [name, setting] : settings_) {
    if (const auto* truth_value = std::get_if<bool>(&setting)) out.emplace(name, *truth_value ? 1 : 0);
    if (const auto* n = std::get_if<int64_t>(&setting)) out.emplace(name, *n);
  }
  return out;
}

std::optional<int64_t> Arguments::number(std::string_view name) const {
  const auto at = settings_.find(name);
  const auto* n = at == settings_.end() ? nullptr : std::get_if<int64_t>(&at->second);
  return n ? std::optional(*n) : std::nullopt;
}

std::optional<bool> Arguments::truth(std::string_view name) const {
  const auto at = settings_.find(name);
  const auto* b = at == settings_.end() ? nullptr : std::get_if<bool>(&at->second);
  return b ? std::optional(*b) : std::nullopt;
}

std::optional<std::string_view> Arguments::text(std::string_view name) const {
  const auto at = settings_.find(name);
  const auto* t = at == settings_.end() ? nullptr : std::get_if<std::string>(&at->second);
  return t ? std::optional<std::string_view>(*t) : std::nullopt;
}

std::optional<int64_t> Arguments::bucket_size() const {
  const auto n = number("ddp_bucket_size");
  return n && *n > 0 ? n : std::nullopt;
}

Mesh Parallelism::mesh() const {
  Mesh mesh;
  mesh.tp = tp;
  mesh.pp = pp;
  mesh.dp = dp;
  mesh.ep = ep;
  mesh.vp = vp;
  mesh.etp = etp;
  return mesh;
}

Parallelism parallelism_of(const Arguments& arguments) {
  Parallelism out;
  // The first versions had one kind of model parallelism.
  out.tp =
      degree(arguments, "tensor_model_parallel_size", arguments.number("model_parallel_size").value_or(1));
  out.pp = degree(arguments, "pipeline_model_parallel_size", 1);
  out.vp = degree(arguments, "virtual_pipeline_model_parallel_size", 1);
  out.ep = degree(arguments, "expert_model_parallel_size", 1);
  out.etp = degree(arguments, "expert_tensor_parallel_size", out.tp);
  out.cp = degree(arguments, "context_parallel_size", 1);
  const int64_t dense = product(product(out.tp, out.cp), out.pp);
  const int64_t expert = product(product(out.etp, out.ep), out.pp);
  out.dp = degree(arguments, "data_parallel_size", 1);
  out.world = degree(arguments, "world_size", product(dense, out.dp));
  if (out.world % dense != 0 || out.world % expert != 0) {
    throw refused("megatron.arguments",
                  cat("args.world_size: expected a multiple of ", dense, " (tp × cp × pp) and of ", expert,
                      " (etp × ep × pp), found ", out.world));
  }
  return out;
}

void hand_over(const Arguments& arguments, Catalog& catalog) {
  for (auto& [name, n] : arguments.numbers()) catalog.arguments.insert_or_assign(name, n);
  for (const auto& [name, setting] : arguments.settings()) catalog.settings.insert_or_assign(name, setting);
}

}  // namespace uckpt::megatron
