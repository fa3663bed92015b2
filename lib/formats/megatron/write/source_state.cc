#include "lib/formats/megatron/write/source_state.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/io/input.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr std::string_view kModelFile = "model_optim_rng.pt", kCommon = "common.pt",
                           kRng = "rng_state/shard_";
constexpr size_t kMostSteps = 1 << 16;  // nodes looked at for parameter groups

bool is_optimizer_object(std::string_view origin) {
  return origin.find("optimizer") != origin.npos && origin.find("/shard_") != origin.npos;
}

// "00_001" is {0, 1}.
std::vector<int64_t> numbers_of(std::string_view text, char between) {
  std::vector<int64_t> out;
  while (!text.empty()) {
    int64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || n < 0) return {};
    out.push_back(n);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty() || text.front() != between) return text.empty() ? out : std::vector<int64_t>();
    text.remove_prefix(1);
  }
  return out;
}

// The state dicts of a file: `model`, or `model0`, `model1`, ….
std::vector<Value> chunks_of(const Value& root) {
  if (const Value model = entry(root, "model")) return {model};
  std::vector<Value> out;
  for (size_t v = 0; const Value model = entry(root, cat("model", v)); ++v) out.push_back(model);
  return out;
}

template <class Visit>
void each_name(const Value& dict, Visit visit) {
  for (size_t i = 0; dict && dict.is_dict() && i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    if (key.text() && !key.has_surrogates()) visit(*key.text(), value);
  }
}

// What tells a group from others in Megatron, whatever its parameters.
std::string group_text(const Value& group) {
  std::string out;
  for (const std::string_view key : {"is_expert_parallel", "wd_mult", "lr_mult", "is_decoupled_lr", "max_lr",
                                     "min_lr", "pre_wd_mult", "pre_lr_mult"})
    if (const Value v = entry(group, key)) out += cat(key, "=", pickle::to_json(v, {}), ";");
  return out;
}

}  // namespace

Value entry(const Value& dict, std::string_view key) {
  return dict && dict.is_dict() ? dict.get(key) : Value();
}

SourceState::SourceState(const Catalog& catalog) {
  for (const Object& object : catalog.objects) {
    const std::string_view name = base_of(object.origin);
    const bool is_wanted = name == kModelFile || name == kCommon || is_optimizer_object(object.origin) ||
                           object.origin.find(kRng) != std::string::npos;
    if (object.size == 0 || !is_wanted) continue;
    try {
      documents_.push_back(
          pickle::parse_whole(catalog.files[object.file]->read_range(object.offset, object.size), {}));
    } catch (Error& e) {
      throw e.in_member(object.origin).in_file(catalog.path);
    }
    take(object, documents_.back()->root());
  }
  std::ranges::sort(files_, {}, [](const SourceFile& f) { return std::tuple(f.pp, f.ep, f.tp); });
  if (!common_.root && !files_.empty()) common_ = files_.front();
  args_ = Arguments::read(args_value());
  for (const SourceFile& file : files_) read_optimizer(entry(file.root, "optimizer"), file);
  read_optimizer(entry(common_.root, "optimizer"), common_);
  for (const SourceFile& object : optimizer_objects_) read_optimizer(object.root, object);
  read_models();
}

void SourceState::take(const Object& object, const Value& root) {
  SourceFile file;
  file.origin = object.origin;
  file.root = root;
  const std::string_view path = object.origin;
  if (base_of(path) == kCommon) {
    common_ = std::move(file);
    return;
  }
  if (const size_t at = path.find(kRng);
      at !=
      path.npos) {  // "rng_state/shard_0.1_2.2": pp, tp of their sizes; "0.1.3_2.2.4" with experts: dp, too
    const std::string_view rest = path.substr(at + kRng.size());
    const auto place = numbers_of(rest.substr(0, rest.find('_')), '.');
    if (!place.empty()) file.pp = place[0];
    if (place.size() > 1) file.tp = place[1];
    if (place.size() > 2) file.dp = place[2];
    rng_files_.push_back(std::move(file));
    return;
  }
  if (is_optimizer_object(path)) {
    optimizer_objects_.push_back(std::move(file));
    return;
  }
  const std::string_view folder = base_of(path.substr(0, path.size() - kModelFile.size() - 1));
  file.folder = folder;
  const auto at = folder.starts_with("mp_rank_") ? numbers_of(folder.substr(8), '_') : std::vector<int64_t>();
  if (at.empty()) return;
  file.tp = at[0];
  const bool has_stages =
      Arguments::read(entry(root, "args")).number("pipeline_model_parallel_size").value_or(1) > 1;
  if (at.size() > 1) (has_stages || at.size() > 2 ? file.pp : file.ep) = at[1];
  if (at.size() > 2) file.ep = at[2];
  files_.push_back(std::move(file));
}

// Wherever below it there are groups: of one optimizer or of several, as a list or under numbers.
void SourceState::read_optimizer(const Value& value, const SourceFile& file) {
  std::vector<Value> todo;
  if (value) todo.push_back(value);
  for (size_t steps = 0; !todo.empty() && steps < kMostSteps; ++steps) {
    const Value at = todo.back();
    todo.pop_back();
    if (at.is_sequence()) {
      for (size_t i = at.size(); i-- > 0;) todo.push_back(at.at(i));
      continue;
    }
    if (!at.is_dict()) continue;
    if (const Value scaler = entry(at, "grad_scaler"); scaler && !grad_scaler_.value)
      grad_scaler_ = {scaler, &file};
    has_plain_optimizer_ |= static_cast<bool>(entry(at, "fp32_from_fp16_params"));
    const Value list = entry(at, "param_groups");
    if (!list || !list.is_sequence()) {
      for (size_t i = at.size(); i-- > 0;) todo.push_back(at.entry(i).second);
      continue;
    }
    for (size_t g = 0; g < list.size(); ++g) {
      std::string text = group_text(list.at(g));
      if (!list.at(g).is_dict() || std::ranges::find(group_texts_, text) != group_texts_.end()) continue;
      groups_.push_back({list.at(g), &file});
      group_texts_.push_back(std::move(text));
    }
    read_state(at);
  }
}

void SourceState::read_state(const Value& optimizer) {
  const Value state = entry(optimizer, "state");
  if (!state || !state.is_dict() || state.size() == 0) return;
  has_plain_optimizer_ = true;
  has_parameter_steps_ |= static_cast<bool>(entry(state, "common_step")) ||
                          static_cast<bool>(entry(state.entry(0).second, "step"));
}

void SourceState::read_models() {
  for (const SourceFile& file : files_)
    for (const Value& chunk : chunks_of(file.root))
      each_name(chunk, [&](std::string_view name, const Value&) { order_.add(name); });
  if (!order_.extra_states().empty()) add_extra_states();
}

// Files count layers from 0 in each chunk of each stage, and experts on each of their ranks.
void SourceState::add_extra_states() {
  std::map<std::pair<int64_t, int64_t>, int64_t> layers;  // of chunk and stage
  int64_t experts = 0;
  for (const SourceFile& file : files_) {
    const auto chunks = chunks_of(file.root);
    for (size_t v = 0; v < chunks.size(); ++v) {
      each_name(chunks[v], [&](std::string_view name, const Value&) {
        std::vector<int64_t> at;
        (void)template_of(name, &at);
        int64_t& count = layers[{static_cast<int64_t>(v), file.pp}];
        if (!at.empty()) count = std::max(count, at[0] + 1);
        if (at.size() > 1) experts = std::max(experts, at[1] + 1);
      });
    }
  }
  std::map<std::pair<int64_t, int64_t>, int64_t> begins;
  int64_t begin = 0;
  for (const auto& [place, count] : layers) {
    begins[place] = begin;
    begin += count;
  }
  for (const SourceFile& file : files_) {
    const auto chunks = chunks_of(file.root);
    for (size_t v = 0; v < chunks.size(); ++v) {
      each_name(chunks[v], [&](std::string_view name, const Value& value) {
        if (!name.ends_with("._extra_state") || value.is_none()) return;
        std::vector<int64_t> at;
        const std::string shape = template_of(name, &at);
        if (!at.empty()) at[0] += begins[{static_cast<int64_t>(v), file.pp}];
        if (at.size() > 1) at[1] += file.ep * experts;
        extra_[{shape, at}].push_back({file.tp, value, &file});
      });
    }
  }
}

Value SourceState::extra_state(const std::string& shape, const std::vector<int64_t>& numbers, int64_t tp,
                               const SourceFile** file) const {
  const auto found = extra_.find({shape, numbers});
  if (found == extra_.end()) return {};
  const ExtraState* best = &found->second.front();
  for (const ExtraState& e : found->second)
    if (e.tp <= tp && e.tp > best->tp) best = &e;
  *file = best->file;
  return best->value;
}

const SourceFile* SourceState::nearest(int64_t tp, int64_t pp, int64_t ep) const {
  const SourceFile* best = nullptr;
  const auto distance = [&](const SourceFile& f) {
    return std::tuple(std::abs(f.pp - pp), std::abs(f.tp - tp), std::abs(f.ep - ep));
  };
  for (const SourceFile& f : files_)
    if (!best || distance(f) < distance(*best)) best = &f;
  return best;
}

SourceState::Found SourceState::rng(int64_t tp, int64_t pp, int64_t ep, int64_t dp) const {
  if (const SourceFile* file = nearest(tp, pp, ep)) return {entry(file->root, "rng_state"), file};
  const SourceFile* best = nullptr;
  const auto distance = [&](const SourceFile& f) {
    return std::tuple(std::abs(f.pp - pp), std::abs(f.tp - tp), std::abs(f.dp - dp));
  };
  for (const SourceFile& f : rng_files_)
    if (!best || distance(f) < distance(*best)) best = &f;
  if (!best) return {};
  // Core objects are a list around the object, which is such a list itself.
  Value list = best->root;
  while (list && list.is_sequence() && list.size() == 1 && list.at(0).is_sequence()) list = list.at(0);
  return {list, best};
}

}  // namespace uckpt::megatron
