#include "lib/formats/dcp/naming.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/match.h"

namespace uckpt::dcp {

namespace {

constexpr std::string_view kModelWords[] = {"model", "model_state_dict", "state_dict", "module", "app.model"};
constexpr std::string_view kTrainingWords[] = {
    "optimizer",   "optim",     "optimizer_state_dict", "lr_scheduler", "scheduler", "dataloader",
    "train_state", "rng_state", "optim_state_dict",     "extra_state"};
// What wrappers put into names when a module's own state_dict() is saved; the state-dict API strips them.
constexpr std::string_view kWrappers[] = {"_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
                                          "_orig_mod."};
// Optimizer states by which a flattened key without weights beside it is told apart from other keys.
constexpr std::string_view kStateWords[] = {"step",       "exp_avg",   "exp_avg_sq", "max_exp_avg_sq",
                                            "square_avg", "acc_delta", "grad_avg",   "momentum_buffer",
                                            "sum",        "exp_inf",   "mu_product", "prev"};
// Groups that the consolidated file has for other things.
constexpr std::string_view kTakenStates[] = {"fp32",    "param",  "buffer", "other",
                                             "objects", "layout", "digest"};

bool is_one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

bool is_number(std::string_view text) {
  return !text.empty() && text.size() < 10 &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// Batch norms keep statistics as wide as their weights, which would make every order of shapes ambiguous.
bool may_be_trained(std::string_view name, DType dtype) {
  const DTypeClass kind = info(dtype).kind;
  return (kind == DTypeClass::kFloat || kind == DTypeClass::kComplex) && !name.ends_with("running_mean") &&
         !name.ends_with("running_var");
}

// A state that can be a group of the consolidated file.
bool is_state_name(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  return !text.empty() && text.size() <= 64 && std::ranges::all_of(text, plain) &&
         !is_one_of(text, kTakenStates);
}

std::string joined(std::span<const KeyPart> parts) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) out += cat(i > 0 ? "." : "", parts[i].text);
  return out;
}

std::string without_wrappers(std::string name) {
  for (const std::string_view w : kWrappers)
    for (size_t at; (at = name.find(w)) != std::string::npos;) name.erase(at, w.size());
  return name;
}

constexpr size_t kDeepest = 6;  // containers around a model

// A tensor that may be an optimizer's state: `prefix.state.rest`.
struct Candidate {
  size_t tensor;
  std::string prefix;  // of the optimizer: "optim"; empty for bare flattened keys
  std::string rest;    // "layers.0.weight.exp_avg"
  // Where the path itself tells them apart.
  std::optional<std::pair<std::string, std::string>> split = {};
};

// All that it may be: a container of the optimizer may be called `state`, too. `whole_keys`: the save kept no
// paths, so a key has its containers in it.
std::vector<Candidate> candidates_of(size_t tensor, const KeyPath& path, bool whole_keys) {
  constexpr std::string_view kState = "state", kHead = "state.";
  constexpr size_t kMost = 4;  // a path may be thousands of parts long
  std::vector<Candidate> out;
  for (size_t i = 0; i < path.size() && out.size() < kMost; ++i) {
    const std::span parts(path);
    if (path[i].text == kState && i + 2 < path.size()) {
      const std::string param = path[i + 1].text, state = joined(parts.subspan(i + 2));
      out.push_back({tensor, joined(parts.first(i)), cat(param, ".", state), std::pair(param, state)});
      continue;
    }
    // Flattened by the state-dict API.
    const std::string& text = path[i].text;
    size_t at = text.starts_with(kHead) ? 0 : std::string::npos;
    if (at != 0 && whole_keys && (at = text.find(".state.")) != std::string::npos) ++at;
    if (at == std::string::npos || path[i].is_index) continue;
    std::string prefix = joined(parts.first(i));
    if (at > 0) prefix += text.substr(0, at - 1);
    std::string rest = text.substr(at + kHead.size());
    if (i + 1 < path.size()) rest += cat(".", joined(parts.subspan(i + 1)));
    out.push_back({tensor, std::move(prefix), std::move(rest)});
  }
  return out;
}

// The optimizer whose parameter groups a key is in: "optim" of "optim.param_groups.0.lr".
std::optional<std::string> optimizer_of_option(const std::string& dotted) {
  constexpr std::string_view kWord = "param_groups.", kInner = ".param_groups.";
  if (dotted.starts_with(kWord)) return "";
  const size_t at = dotted.find(kInner);
  return at == std::string::npos ? std::nullopt : std::optional(dotted.substr(0, at));
}

// How many containers two keys both lie in.
size_t shared_containers(const std::string& a, const std::string& b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(std::count(a.begin(), end, '.'));
}

// How well the weights of a container are those that an optimizer's states speak of; more is better.
struct Fit {
  size_t names = 0;    // of the states, those whose parameter is there
  size_t shapes = 0;   // and has their shape
  size_t shared = 0;   // containers that both lie in
  ptrdiff_t word = 0;  // how usual its name is for a model
  auto operator<=>(const Fit&) const = default;
};

// The weights below one container of the state dict, by their names in it.
struct Container {
  std::unordered_map<std::string, size_t> names;  // also without wrappers; tensor
  std::vector<std::pair<std::string, size_t>> order;

  void add(const std::string& name, size_t tensor) {
    order.emplace_back(name, tensor);
    names.emplace(name, tensor);
    names.emplace(without_wrappers(name), tensor);
  }
};

using NamedContainer = std::pair<const std::string, Container>;

class Namer {
 public:
  Namer(const Stored& stored, const ReadList& read_list, const ReadNumber& read_number,
        std::vector<std::string>& warnings)
      : stored_(stored),
        read_list_(read_list),
        read_number_(read_number),
        warnings_(warnings),
        out_(stored.tensors.size()) {}

  Naming run() {
    collect();
    collect_numbers();
    for (auto& [prefix, list] : optimizers_) choose_container(prefix, list);
    choose_model();
    for (size_t t = 0; t < stored_.tensors.size(); ++t)
      if (!is_of_optimizer_[t]) name_weight(t);
    for (auto& [prefix, list] : optimizers_) name_states(prefix, list);
    drop_duplicates();
    std::vector<StateNumber> numbers = take_numbers();
    return {std::move(out_), std::move(numbers)};
  }

 private:
  KeyPath path_of(const std::string& key) const {
    const auto at = stored_.paths.find(key);
    return at == stored_.paths.end() || at->second.empty() ? KeyPath{{key, false}} : at->second;
  }

  // Tensors, and after them the numbers that are states like them.
  bool is_number_of_state(size_t t) const { return t >= stored_.tensors.size(); }
  const std::string& key_of(size_t t) const {
    return is_number_of_state(t) ? stored_.bytes[numbers_[t - stored_.tensors.size()].object].key
                                 : stored_.tensors[t].key;
  }
  Shape shape_of(size_t t) const { return is_number_of_state(t) ? Shape() : stored_.tensors[t].shape; }

  bool is_option(const KeyPath& path) const {
    const auto optimizer = optimizer_of_option(joined(path));
    return optimizer && with_groups_.contains(*optimizer);
  }

  // Keeps it with its optimizer, if it may be one's state.
  bool take_state(size_t t, const KeyPath& path) {
    std::vector<Candidate> candidates = candidates_of(t, path, stored_.paths.empty());
    auto found =
        std::ranges::find_if(candidates, [&](const Candidate& c) { return with_groups_.contains(c.prefix); });
    if (found == candidates.end()) found = std::ranges::find_if(candidates, likely_state);
    if (found == candidates.end()) return false;
    optimizers_[found->prefix].push_back(std::move(*found));
    return true;
  }

  // Those of parameters that are known by their tensors.
  std::vector<StateNumber> take_numbers() {
    const size_t tensors = stored_.tensors.size();
    for (size_t i = 0; i < numbers_.size(); ++i) numbers_[i].name = std::move(out_[tensors + i]);
    out_.resize(tensors);
    if (numbers_.empty()) return {};
    std::set<std::string_view> known;
    for (const TensorName& n : out_)
      if (n.state != state::kOther) known.insert(n.name);
    std::erase_if(numbers_, [&](const StateNumber& n) {
      return n.name.state == state::kOther || !known.contains(n.name.name);
    });
    return std::move(numbers_);
  }

  void collect_numbers() {
    for (size_t b = 0; b < stored_.bytes.size(); ++b) {
      const KeyPath path = path_of(stored_.bytes[b].key);
      if (stored_.bytes[b].same_key_as || is_option(path)) continue;
      if (candidates_of(0, path, stored_.paths.empty()).empty()) continue;
      const auto value = read_number_(stored_.bytes[b]);
      if (!value || !take_state(out_.size(), path)) continue;
      numbers_.push_back({b, *value, {}});
      out_.emplace_back();
    }
  }

  void collect() {
    is_of_optimizer_.assign(stored_.tensors.size(), false);
    for (const StoredBytes& b : stored_.bytes)
      if (auto optimizer = optimizer_of_option(joined(path_of(b.key)))) with_groups_.insert(*optimizer);
    for (size_t t = 0; t < stored_.tensors.size(); ++t) {
      const std::string& key = stored_.tensors[t].key;
      paths_.push_back(path_of(key));
      if (is_option(paths_[t])) {  // a learning rate may be a tensor
        is_of_optimizer_[t] = true;
        out_[t] = {std::string(state::kOther), key};
        continue;
      }
      is_of_optimizer_[t] = take_state(t, paths_[t]);
      if (is_of_optimizer_[t]) continue;
      const std::span parts(paths_[t]);
      for (size_t n = 0; n < parts.size() && n < kDeepest; ++n)
        containers_[joined(parts.first(n))].add(joined(parts.subspan(n)), t);
    }
  }

  static bool likely_state(const Candidate& c) {
    const size_t dot = c.prefix.rfind('.');
    const std::string_view last = std::string_view(c.prefix).substr(dot == std::string::npos ? 0 : dot + 1);
    return is_one_of(last, kTrainingWords) || last.starts_with("optim") || !known_state(c.rest).empty();
  }

  // The state at the end of "layers.0.weight.exp_avg", if it is one that optimizers of torch have.
  static std::string_view known_state(std::string_view rest) {
    const size_t dot = rest.rfind('.');
    if (dot == std::string_view::npos) return {};
    const std::string_view last = rest.substr(dot + 1);
    return is_one_of(last, kStateWords) ? last : std::string_view();
  }

  // Parameter and state of a candidate, by the weights of a container.
  static std::optional<std::pair<std::string, std::string>> split(const Candidate& c, const Container& in) {
    if (c.split) return in.names.contains(c.split->first) ? c.split : std::nullopt;
    for (size_t dot = c.rest.rfind('.'); dot != std::string::npos && dot > 0;
         dot = c.rest.rfind('.', dot - 1)) {
      std::string name = c.rest.substr(0, dot);
      if (in.names.contains(name)) return std::pair(std::move(name), c.rest.substr(dot + 1));
    }
    return std::nullopt;
  }

  static std::string head_of_group(const std::string& prefix, size_t group) {
    return cat(prefix, prefix.empty() ? "" : ".", "param_groups.", group, ".");
  }

  Fit fit_of(const std::string& prefix, const std::vector<Candidate>& list,
             const NamedContainer& named) const {
    const auto& [name, container] = named;
    constexpr size_t kTried = 64;
    Fit fit;
    for (size_t i = 0; i < std::min(list.size(), kTried); ++i) {
      const auto found = split(list[i], container);
      if (!found) continue;
      ++fit.names;
      const Shape& weight = stored_.tensors[container.names.at(found->first)].shape;
      fit.shapes += shape_of(list[i].tensor) == weight;
    }
    if (fit.names == 0) return fit;
    fit.shared = shared_containers(cat(name, "."), cat(prefix, "."));
    fit.word = std::end(kModelWords) - std::ranges::find(kModelWords, name);
    return fit;
  }

  // The container whose weights an optimizer's states speak of: the one that fits best. An average of the
  // weights, or another model, may have the same names.
  void choose_container(const std::string& prefix, const std::vector<Candidate>& list) {
    // Numbers are no names, though something may have them for names: the items of a ParameterList.
    const auto params = read_list_(head_of_group(prefix, 0) + "params");
    if (params && params->of_numbers) return;
    Fit best;
    std::vector<const NamedContainer*> fitting;
    for (const NamedContainer& named : containers_) {
      const Fit fit = fit_of(prefix, list, named);
      if (fit.names == 0 || fit < best) continue;
      if (fit > best) fitting.clear();
      best = fit;
      fitting.push_back(&named);
    }
    if (fitting.empty()) return;
    const auto first = [](const NamedContainer* named) { return named->second.order.front().second; };
    const size_t told = std::min<size_t>(2, fitting.size());
    std::ranges::partial_sort(fitting, fitting.begin() + static_cast<ptrdiff_t>(told), {}, first);
    container_of_[prefix] = fitting[0]->first;
    if (told == 2 && ++unsure_ == 1)
      warnings_.push_back(cat("the optimizer `", escape(prefix), "` speaks of weights that are in `",
                              escape(fitting[0]->first), "` and in `", escape(fitting[1]->first),
                              "`: taken for those of the first, which stand before the others"));
  }

  // The prefix that names do without.
  void choose_model() {
    std::set<std::string> spoken_of;
    for (const auto& [prefix, name] : container_of_) spoken_of.insert(name);
    if (spoken_of.size() == 1) {
      model_ = *spoken_of.begin();
    } else if (spoken_of.empty()) {
      for (const std::string_view word : kModelWords)
        if (!model_ && containers_.contains(std::string(word))) model_ = word;
    }
  }

  void name_weight(size_t t) {
    const KeyPath& path = paths_[t];
    const std::string& key = stored_.tensors[t].key;
    const std::span parts(path);
    if (model_) {
      for (size_t n = 0; n < std::min(parts.size(), kDeepest); ++n) {
        if (joined(parts.first(n)) != *model_) continue;
        const bool loose = model_->empty() && parts.size() > 1;  // beside bare weights
        out_[t] = loose ? TensorName{std::string(state::kOther), key}
                        : TensorName{std::string(state::kParam), joined(parts.subspan(n))};
        return;
      }
      out_[t] = {std::string(state::kOther), key};
      return;
    }
    const bool in_list = std::ranges::any_of(path, [](const KeyPart& p) { return p.is_index; });
    const bool training =
        is_one_of(path.front().text, kTrainingWords) || (in_list && !path.front().text.starts_with("model"));
    out_[t] = {std::string(training ? state::kOther : state::kParam), joined(path)};
  }

  void name_states(const std::string& prefix, const std::vector<Candidate>& list) {
    const auto chosen = container_of_.find(prefix);
    std::unordered_map<std::string, std::string> numbered;
    if (chosen == container_of_.end()) numbered = resolve_numbers(prefix, list);
    for (const Candidate& c : list) {
      auto found = chosen == container_of_.end() ? std::nullopt : split(c, containers_.at(chosen->second));
      if (found) {
        const Container& in = containers_.at(chosen->second);
        found->first = out_[in.names.at(found->first)].name;  // as the weight itself is called
      } else if (c.split) {
        const auto number = numbered.find(c.split->first);
        if (number != numbered.end())
          found = std::pair(number->second, c.split->second);
        else if (!is_number(c.split->first))
          found = c.split;
      } else if (const std::string_view state = known_state(c.rest); !state.empty()) {
        found = std::pair(c.rest.substr(0, c.rest.size() - state.size() - 1), std::string(state));
        if (is_number(found->first)) found.reset();
      }
      const bool tied = found && is_state_name(found->second);
      out_[c.tensor] = tied ? TensorName{found->second, found->first}
                            : TensorName{std::string(state::kOther), key_of(c.tensor)};
    }
  }

  // Names for states that are called 0, 1, 2: by the parameter list where it has names, else by shapes that
  // one weight only has, else by the order of shapes, where that is the only one which fits: a guess, and
  // said.
  std::unordered_map<std::string, std::string> resolve_numbers(const std::string& prefix,
                                                               const std::vector<Candidate>& list) {
    std::unordered_map<std::string, std::string> out;
    std::map<std::string, std::vector<std::pair<std::string_view, Shape>>> states;  // of each number
    for (const Candidate& c : list) {
      if (!c.split || !is_number(c.split->first)) return out;
      auto& of_number = states[c.split->first];
      if (c.split->second != state::kStep && !is_number_of_state(c.tensor))
        of_number.emplace_back(c.split->second, stored_.tensors[c.tensor].shape);
    }
    const std::string* container = weights_container();
    std::vector<std::vector<std::string>> groups;
    for (size_t g = 0;; ++g) {
      const std::string head = head_of_group(prefix, g);
      const auto numbers = read_list_(cat(head, "params"));
      if (!numbers) break;
      groups.push_back(numbers->texts);
      const auto names = read_list_(cat(head, "param_names"));
      if (!names || names->texts.size() != numbers->texts.size()) continue;
      for (size_t i = 0; i < names->texts.size(); ++i) out.emplace(numbers->texts[i], names->texts[i]);
    }
    if (!out.empty() || container == nullptr) return out;
    const Container& in = containers_.at(*container);
    std::vector<Shape> weights;
    std::vector<size_t> tensors;
    for (const auto& [name, t] : in.order) {
      if (!may_be_trained(name, stored_.tensors[t].dtype)) continue;
      weights.push_back(stored_.tensors[t].shape);
      tensors.push_back(t);
    }
    std::vector<std::vector<std::optional<Shape>>> slots;
    bool all_have_shapes = true;
    for (const auto& group : groups) {
      auto& slot = slots.emplace_back();
      for (const std::string& number : group) {
        const auto at = states.find(number);
        slot.push_back(at == states.end() ? std::nullopt : deepspeed::shape_of_states(at->second));
        all_have_shapes &= at == states.end() || slot.back().has_value();
      }
    }
    std::vector<std::vector<size_t>> match;
    bool is_proven = false;
    const auto found = slots.empty()     ? deepspeed::Match::kNone
                       : all_have_shapes ? deepspeed::match_numbers(weights, slots, match, is_proven)
                                         : deepspeed::match_in_order(weights, slots, match);
    constexpr std::string_view kWayOut =
        "; get_optimizer_state_dict of torch.distributed.checkpoint.state_dict saves names";
    if (found != deepspeed::Match::kUnique) {
      warnings_.push_back(cat("the states of the optimizer `", escape(prefix),
                              "` have numbers, and nothing tells whose they are: kept under their keys",
                              kWayOut));
      return out;
    }
    if (!is_proven) warnings_.push_back(cat(deepspeed::order_assumed(prefix), kWayOut));
    for (size_t g = 0; g < groups.size(); ++g)
      for (size_t i = 0; i < groups[g].size(); ++i)
        if (match[g][i] != deepspeed::kNoMatch) out.emplace(groups[g][i], out_[tensors[match[g][i]]].name);
    return out;
  }

  const std::string* weights_container() {
    if (model_) return &*model_;
    const auto bare = containers_.find("");
    if (bare == containers_.end()) return nullptr;
    return &bare->first;
  }

  // Two keys that come to one name: the later keeps its key.
  void drop_duplicates() {
    std::set<std::pair<std::string, std::string>> taken;
    for (size_t t = 0; t < out_.size(); ++t)
      if (!taken.emplace(out_[t].state, out_[t].name).second)
        out_[t] = {std::string(state::kOther), key_of(t)};
  }

  const Stored& stored_;
  const ReadList& read_list_;
  const ReadNumber& read_number_;
  std::vector<std::string>& warnings_;
  std::vector<TensorName> out_;
  std::vector<KeyPath> paths_;
  std::vector<bool> is_of_optimizer_;
  std::vector<StateNumber> numbers_;
  std::set<std::string> with_groups_;  // containers with a list of parameter groups: optimizers
  std::map<std::string, std::vector<Candidate>> optimizers_;  // by prefix
  std::map<std::string, Container> containers_;               // by the path's first parts
  size_t unsure_ = 0;                                // optimizers whose weights two containers may be
  std::map<std::string, std::string> container_of_;  // of an optimizer's weights
  std::optional<std::string> model_;
};

}  // namespace

std::optional<TextList> texts_in(const pickle::Value& list) {
  if (!list.is_sequence()) return std::nullopt;
  TextList out;
  for (size_t i = 0; i < list.size(); ++i) {
    const pickle::Value value = list.at(i);
    const auto number = value.integer();
    out.of_numbers |= number.has_value();
    if (const auto text = value.text())
      out.texts.emplace_back(*text);
    else if (number)
      out.texts.push_back(cat(*number));
    else
      return std::nullopt;
  }
  return out;
}

Naming name_all(const Stored& stored, const ReadList& read_list, const ReadNumber& read_number,
                std::vector<std::string>& warnings) {
  return Namer(stored, read_list, read_number, warnings).run();
}

std::vector<TensorName> name_tensors(const Stored& stored, const ReadList& read_list,
                                     std::vector<std::string>& warnings) {
  return name_all(
             stored, read_list, [](const StoredBytes&) { return std::nullopt; }, warnings)
      .tensors;
}

}  // namespace uckpt::dcp
