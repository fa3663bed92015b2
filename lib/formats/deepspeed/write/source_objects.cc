#include "lib/formats/deepspeed/write/source_objects.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/dcp/group_objects.h"
#include "lib/formats/deepspeed/views.h"
#include "lib/formats/file_path.h"
#include "lib/formats/torch/tensor_call.h"
#include "lib/io/input.h"
#include "lib/pickle/machine.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// The same file of another data parallel rank; "" where the name says none.
std::string of_data_rank(const std::string& name, int64_t rank) {
  constexpr std::string_view kHead = "zero_pp_rank_";
  const size_t end = name.find('_', kHead.size());
  if (!name.starts_with(kHead) || end == std::string::npos) return "";
  return cat(kHead, rank, name.substr(end));
}

}  // namespace

std::array<std::string, 2> loose_names(const std::string& file, const std::string& path) {
  return {cat(stem_of(file), ".", path), path};
}

Error unselected_option(const char* code, const Catalog& catalog, const std::string& path) {
  return refused(code, "it is an option of the optimizer that is a tensor, and not among those to be written")
      .in_file(catalog.path)
      .in_tensor(cat(state::kOther, "/", path))
      .hint("--states takes `other` too, and --drop must spare it");
}

SourceObjects::SourceObjects(const Catalog& catalog) {
  for (const Object& object : catalog.objects) {
    const std::string name(base_of(object.origin));
    if (object.size == 0 || (name != "optimizer_state.pt" && !parse_name(name))) continue;
    try {
      Bytes bytes = catalog.files[object.file]->read_range(object.offset, object.size);
      take(object, pickle::parse_whole(std::move(bytes), {}));
    } catch (Error& e) {
      throw e.in_member(object.origin).in_file(catalog.path);
    }
  }
  if (!documents_.empty()) return;
  dcp::SavedGroups groups = dcp::read_param_groups(catalog);
  if (!groups.list) return;
  named_groups_ = groups.list->root();
  groups_are_ordered_ = groups.is_ordered;
  documents_.push_back({std::move(groups.list), ""});
}

void SourceObjects::take(const Object& object, std::unique_ptr<pickle::Document> document) {
  const std::string name(base_of(object.origin));
  const Value root = document->root();
  documents_.push_back({std::move(document), name});
  const auto parsed = parse_name(name);
  if (!parsed) {
    universal_state_ = root;
    return;
  }
  const std::pair at(parsed->model, parsed->data);
  switch (parsed->role) {
    case Role::kModel:
    case Role::kZeroModel:
      models_.emplace(at, Origin{root, name});
      return;
    case Role::kOptimizer:
      optimizers_.emplace(at, root.get("optimizer_state_dict"));
      return;
    case Role::kLayer:
      layers_.emplace(parsed->layer, root);
      layer_names_have_rank_ |= name.find("-model_0") != std::string::npos;
      return;
    case Role::kExpert:
      experts_.emplace(parsed->layer, root);
      return;
    case Role::kExpertOptimizer:
      return;
  }
}

SourceObjects::Origin SourceObjects::model(int64_t model_rank, int64_t data_rank) const {
  for (const std::pair<int64_t, int64_t>& at :
       {std::pair(model_rank, data_rank), std::pair(model_rank, int64_t{0})})
    if (const auto found = models_.find(at); found != models_.end())
      return {found->second.root, found->second.file, of_data_rank(found->second.file, data_rank)};
  const auto same_rank = models_.lower_bound({model_rank, 0});
  if (same_rank != models_.end() && same_rank->first.first == model_rank) return same_rank->second;
  return models_.empty() ? Origin{} : models_.begin()->second;
}

std::vector<int64_t> SourceObjects::model_ranks() const {
  std::vector<int64_t> out;
  for (const auto& [at, origin] : models_)
    if (out.empty() || out.back() != at.first) out.push_back(at.first);
  return out;
}

Value SourceObjects::zero_state(int64_t model_rank) const {
  if (universal_state_) return universal_state_;
  const auto found = optimizers_.lower_bound({model_rank, 0});
  if (found != optimizers_.end() && found->first.first == model_rank) return found->second;
  return optimizers_.empty() ? Value() : optimizers_.begin()->second;
}

Value entry(const Value& dict, std::string_view key) {
  return dict && dict.is_dict() ? dict.get(key) : Value();
}

Value SourceObjects::param_groups(int64_t model_rank) const {
  const Value state = zero_state(model_rank);
  for (const Value& groups :
       {entry(state, "param_groups"), entry(entry(state, "optimizer_state_dict"), "param_groups"),
        entry(entry(state, "base_optimizer_state"), "param_groups"),
        entry(plain_optimizer(model_rank), "param_groups")})
    if (groups && groups.kind() == pickle::Kind::kList) return groups;
  return named_groups_;
}

std::optional<double> SourceObjects::scheduled_rate(size_t group) const {
  const Value rates = entry(entry(model(0, 0).root, "lr_scheduler"), "_last_lr");
  return rates && rates.is_sequence() && group < rates.size() ? rates.at(group).number() : std::nullopt;
}

std::optional<SourceObjects::TensorPlace> SourceObjects::tensor_place(const Value& value) const {
  if (!torch::is_tensor_call(value)) return std::nullopt;
  const auto held =
      std::ranges::find_if(documents_, [&](const Held& h) { return h.document.get() == value.document(); });
  if (held == documents_.end()) return std::nullopt;
  if (held->file.empty()) return TensorPlace{"", torch::storage_key_of(value)};
  if (held->paths.empty()) {
    const Value root = held->document->root();
    walk_values(root, root == universal_state_ ? "optimizer_state" : "", {},
                [&](const Value& below, const std::string& path) {
                  if (!torch::is_tensor_call(below)) return false;
                  held->paths.emplace(below.id(), path);
                  return true;
                });
  }
  const auto found = held->paths.find(value.id());
  return found == held->paths.end() ? std::nullopt : std::optional(TensorPlace{held->file, found->second});
}

Value SourceObjects::plain_optimizer(int64_t model_rank) const {
  const Value optimizer = entry(model(model_rank, 0).root, "optimizer"),
              wrapped = entry(optimizer, "optimizer_state_dict");
  return wrapped && wrapped.is_dict() ? wrapped : optimizer;
}

Value SourceObjects::wrapper() const {
  const Value optimizer = entry(model(0, 0).root, "optimizer");
  return entry(optimizer, "optimizer_state_dict") ? optimizer : Value();
}

bool SourceObjects::groups_have_names() const {
  for (size_t g = 0; named_groups_ && g < named_groups_.size(); ++g) {
    const Value names = entry(named_groups_.at(g), "params");
    if (!names || !names.is_sequence()) return false;
    for (size_t i = 0; i < names.size(); ++i)
      if (!names.at(i).text()) return false;
  }
  return static_cast<bool>(named_groups_);
}

Value SourceObjects::group_state() const {
  const Value state = zero_state();
  const Value base = entry(state, "base_optimizer_state");
  if (base && base.kind() == pickle::Kind::kList && base.size() > 0) return base.at(0);
  for (const Value& entries : {entry(base, "state"), entry(entry(state, "optimizer_state_dict"), "state"),
                               entry(plain_optimizer(0), "state")})
    if (entries && entries.is_dict() && entries.size() > 0) return entries.entry(0).second;
  return {};
}

std::set<std::string> SourceObjects::state_names() const {
  std::set<std::string> out;
  const auto add = [&](const Value& state) {
    for (size_t i = 0; state && state.is_dict() && i < state.size(); ++i) {
      const auto [key, value] = state.entry(i);
      if (key.text() && value.kind() != pickle::Kind::kNone) out.emplace(*key.text());
    }
  };
  const Value state = zero_state();
  const Value base = entry(state, "base_optimizer_state");
  if (base && base.kind() == pickle::Kind::kList)
    for (size_t i = 0; i < base.size(); ++i) add(base.at(i));
  for (const Value& entries : {entry(base, "state"), entry(entry(state, "optimizer_state_dict"), "state"),
                               entry(plain_optimizer(0), "state")})
    if (entries && entries.is_dict())
      for (size_t i = 0; i < entries.size(); ++i) add(entries.entry(i).second);
  return out;
}

std::set<std::string> SourceObjects::stated_names() const {
  std::set<std::string> out;
  const auto add = [&](const Value& shapes) {
    for (size_t i = 0; shapes && shapes.is_dict() && i < shapes.size(); ++i)
      if (const auto name = shapes.entry(i).first.text()) out.emplace(*name);
  };
  for (const auto& [rank, origin] : models_) {
    const Value lists = entry(origin.root, "param_shapes");
    for (size_t g = 0; lists && lists.is_sequence() && g < lists.size(); ++g) add(lists.at(g));
    add(entry(origin.root, "frozen_param_shapes"));
  }
  return out;
}

Value SourceObjects::ds_config() const { return entry(model(0, 0).root, "ds_config"); }

Value SourceObjects::config(std::string_view section, std::string_view key) const {
  return entry(section.empty() ? ds_config() : entry(ds_config(), section), key);
}

std::optional<double> SourceObjects::config_number(std::string_view section, std::string_view key) const {
  const Value found = config(section, key);
  return found ? found.number() : std::nullopt;
}

std::string SourceObjects::config_text(std::string_view section, std::string_view key) const {
  const Value found = config(section, key);
  return std::string(found ? found.text().value_or("") : "");
}

bool SourceObjects::config_flag(std::string_view section, std::string_view key) const {
  const Value found = config(section, key);
  return found && found.boolean().value_or(false);
}

std::optional<int> SourceObjects::stage() const {
  const Value stage = entry(zero_state(), "zero_stage");
  if (!stage) return std::nullopt;
  if (const auto n = stage.integer()) return static_cast<int>(*n);
  if (stage.kind() == pickle::Kind::kCall && stage.args().size() == 1)
    if (const auto n = stage.args().at(0).integer()) return static_cast<int>(*n);
  return std::nullopt;
}

}  // namespace uckpt::deepspeed
