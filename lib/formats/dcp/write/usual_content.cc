#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/dcp/write/content.h"
#include "lib/formats/deepspeed/write/param_groups.h"

namespace uckpt::dcp {

namespace {

using deepspeed::ParamGroup;
using pickle::Kind;
using pickle::Pickler;
using pickle::Value;

KeyPart word(std::string_view text) { return {std::string(text), false}; }

// Options of a group that torch's Adam and AdamW have, with their defaults; `load` wants all of them.
struct Option {
  std::string_view name;
  void (*write)(Pickler& out);
};
constexpr Option kAdamOptions[] = {
    {"lr", [](Pickler& out) { out.real(1e-3); }},
    {"betas",
     [](Pickler& out) {
       out.begin_tuple(2);
       out.real(0.9);
       out.real(0.999);
       out.end_tuple();
     }},
    {"eps", [](Pickler& out) { out.real(1e-8); }},
    {"weight_decay", [](Pickler& out) { out.real(1e-2); }},
    {"amsgrad", [](Pickler& out) { out.boolean(false); }},
    {"maximize", [](Pickler& out) { out.boolean(false); }},
    {"foreach", [](Pickler& out) { out.none(); }},
    {"capturable", [](Pickler& out) { out.boolean(false); }},
    {"differentiable", [](Pickler& out) { out.boolean(false); }},
    {"fused", [](Pickler& out) { out.none(); }},
    {"decoupled_weight_decay", [](Pickler& out) { out.boolean(true); }},
};
// What the last layer of a language model is called.
constexpr std::array<std::string_view, 3> kHeads = {"lm_head.weight", "embed_out.weight", "decoder.weight"};
constexpr std::array<std::string_view, 3> kAdamStates = {"step", "exp_avg", "exp_avg_sq"};

// Numbers, texts and a few of them in lists: what an option is.
bool is_plain(const Value& value) {
  constexpr size_t kMost = 10000;
  std::vector<Value> left = {value};
  for (size_t i = 0; i < left.size(); ++i) {
    const Value v = left[i];
    if (v.kind() > Kind::kTuple || left.size() > kMost) return false;
    for (size_t item = 0; v.is_sequence() && item < v.size(); ++item) left.push_back(v.at(item));
  }
  return true;
}

class UsualContent {
 public:
  UsualContent(const Catalog& catalog, const WriteRequest& request, std::vector<std::string>& notes)
      : catalog_(catalog),
        request_(request),
        notes_(notes),
        source_(std::make_shared<const deepspeed::SourceObjects>(catalog)) {
    content_.source = source_;
  }

  Content make() {
    collect();
    add_weights();
    add_states();
    if (!states_.empty()) add_groups();
    for (const auto& [name, index] : others_) {
      if (used_others_.contains(index)) continue;
      new_key(name);
      content_.tensors.push_back({name, {word(name)}, index, false});
    }
    if (content_.tensors.empty())
      throw refused("select.nothing", "there is no tensor to be written").in_file(catalog_.path);
    if (catalog_.iteration) {
      new_key("iteration");
      content_.add_object({word("iteration")}).made = [n = *catalog_.iteration](Pickler& out) {
        out.integer(n);
      };
    }
    if (!catalog_.objects.empty())
      notes_.push_back(
          states_.empty()
              ? "left out, since the keys of a model have no place for it: the state that is no tensor"
              : "left out, since the keys of a model and its optimizer have no place for it: the "
                "state that is no tensor, but the optimizer's options");
    return std::move(content_);
  }

 private:
  const Tensor& tensor(size_t index) const { return catalog_.tensors[request_.tensors[index]]; }

  void collect() {
    std::set<std::string_view> masters, module_weights;
    for (size_t i = 0; i < request_.tensors.size(); ++i) {
      const Tensor& t = tensor(i);
      if (request_.tensors[i] >= request_.first_object) continue;
      if (t.state == state::kOther) {
        others_.emplace_back(t.name, i);
      } else if (!is_weight(t.state)) {
        if (!t.alias) states_.push_back(i);
      } else if (const auto [at, is_new] = weight_of_.try_emplace(t.name, weights_.size()); is_new) {
        weights_.push_back(i);
      } else {
        ++both_;
        if (t.state == state::kMaster) weights_[at->second] = i;
      }
    }
  }

  void add_weights() {
    size_t masters = 0, narrower = 0;
    for (const size_t i : weights_) {
      const Tensor& t = tensor(i);
      masters += t.state == state::kMaster;
      narrower += t.state == state::kMaster && is_narrower(t);
      new_key(cat("model.", t.name));
      content_.tensors.push_back(
          {cat("model.", t.name), {word("model"), word(t.name)}, i, t.state != state::kBuffer});
    }
    if (narrower > 0)
      notes_.push_back(cat("of ", masters, masters == 1 ? " parameter" : " parameters",
                           " the fp32 master is written: a model of another type casts it when it loads"));
    tell_missing_tie();
    if (both_ > 0)
      notes_.push_back(cat(both_, both_ == 1
                                      ? " module weight that differs from its master is left out"
                                      : " module weights that differ from their masters are left out"));
  }

  // Files of Hugging Face leave out one of two tied names; the state dict of a live model has both.
  void tell_missing_tie() {
    const auto tied = catalog_.settings.find("tie_word_embeddings");
    if (tied == catalog_.settings.end() || tied->second != ModelSetting(true)) return;
    const auto is_head = [](const auto& weight) {
      return std::ranges::any_of(kHeads, [&](std::string_view head) { return weight.first.ends_with(head); });
    };
    if (std::ranges::any_of(weight_of_, is_head)) return;
    notes_.push_back(
        "the model's embeddings are tied, and the input has one name of the two: a live model has both, and "
        "loads with DefaultLoadPlanner(allow_partial_load=True)");
  }

  static bool is_narrower(const Tensor& t) {
    return (t.module_dtype && *t.module_dtype != t.dtype) ||
           std::ranges::any_of(t.copies, [&](const Copy& c) { return c.is_module && c.dtype != t.dtype; });
  }

  void add_states() {
    for (const size_t i : states_) {
      const Tensor& t = tensor(i);
      if (!weight_of_.contains(t.name))
        throw refused("dcp.no_weight",
                      "it is a state of an optimizer, and the weight that it belongs to is not written")
            .in_file(catalog_.path)
            .in_tensor(t.path())
            .hint("--states fp32,param,buffer writes weights alone");
      const std::string key = cat("optim.state.", t.name, ".", t.state);
      new_key(key);
      content_.tensors.push_back({key, {word("optim"), word("state"), word(t.name), word(t.state)}, i, true});
      seen_states_.insert(t.state);
    }
  }

  void add_groups() {
    is_adam_ = std::ranges::all_of(
        seen_states_, [](const auto& s) { return std::ranges::find(kAdamStates, s) != kAdamStates.end(); });
    const std::vector<ParamGroup> groups = groups_of_source();
    std::set<std::string> defaults;
    for (size_t g = 0; g < groups.size(); ++g) add_group(g, groups[g], defaults);
    if (defaults.empty()) return;
    std::string list;
    for (const std::string& name : defaults) list += cat(list.empty() ? "" : ", ", name);
    notes_.push_back(
        cat("options of the optimizer that the input lacks are the defaults of torch's AdamW: ", list));
  }

  static KeyPath option_path(size_t g, std::string_view name) {
    return {word("optim"), word("param_groups"), {cat(g), true}, word(name)};
  }

  bool add_tensor_option(size_t g, std::string_view name, const Value& value) {
    const auto place = source_->tensor_place(value);
    if (!place) return false;
    const auto names = deepspeed::loose_names(place->file, place->path);
    const auto found = std::ranges::find_first_of(others_, names, {}, &std::pair<std::string, size_t>::first);
    if (found == others_.end()) throw deepspeed::unselected_option("dcp.option", catalog_, place->path);
    const KeyPath path = option_path(g, name);
    new_key(dotted(path));
    content_.tensors.push_back({dotted(path), path, found->second, false});
    used_others_.insert(found->second);
    return true;
  }

  void add_group(size_t g, const ParamGroup& group, std::set<std::string>& defaults) {
    const auto option = [&](std::string_view name) -> ContentObject& {
      const KeyPath path = option_path(g, name);
      new_key(dotted(path));
      return content_.add_object(path);
    };
    option("params").made = [names = written_of(group.names)](Pickler& out) {
      out.begin_list();
      for (const std::string& name : names) out.text(name);
      out.end_list();
    };
    std::set<std::string, std::less<>> has;
    for (size_t i = 0; group.options && group.options.is_dict() && i < group.options.size(); ++i) {
      const auto [key, value] = group.options.entry(i);
      const auto name = key.text();
      if (!name || *name == "params" || *name == "param_names") continue;
      if (add_tensor_option(g, *name, value)) {
        has.emplace(*name);
      } else if (is_plain(value)) {
        has.emplace(*name);
        option(*name).made = [v = value](Pickler& out) { out.copy(v); };
      }
    }
    for (const Option& o : kAdamOptions) {
      if (!is_adam_ || has.contains(o.name)) continue;
      defaults.emplace(o.name);
      option(o.name).made = o.write;
    }
  }

  std::vector<std::string> written_of(const std::vector<std::string>& names) const {
    std::vector<std::string> out;
    for (const std::string& name : names)
      if (weight_of_.contains(name)) out.push_back(name);
    return out;
  }

  // Of all parameters that are trained, as the source has them: what is not written falls out later.
  std::vector<ParamGroup> groups_of_source() {
    std::vector<std::string> trained, all;
    // Of tied names the optimizer knows one, which need not be the one that has the bytes here.
    const bool any_tied = std::ranges::any_of(
        catalog_.tensors, [](const Tensor& t) { return t.state == state::kMaster && t.alias; });
    const auto stated = any_tied ? source_->stated_names() : std::set<std::string>();
    std::map<uint32_t, std::string> masters;
    for (uint32_t i = 0; i < catalog_.tensors.size(); ++i) {
      const Tensor& t = catalog_.tensors[i];
      if (is_weight(t.state)) all.push_back(t.name);
      if (t.state != state::kMaster) continue;
      std::string& name = masters.try_emplace(t.alias.value_or(i), t.name).first->second;
      if (stated.contains(t.name) && !stated.contains(name)) name = t.name;
    }
    for (auto& [index, name] : masters) trained.push_back(std::move(name));
    if (source_->param_groups() || !source_->empty()) {
      try {
        return deepspeed::read_groups(catalog_, *source_, trained, {},
                                      deepspeed::pipeline_layers(catalog_, *source_, all),
                                      deepspeed::moe_layers(catalog_, *source_, all));
      } catch (const Error& e) {
        if (e.exit_code() != 1) throw;
      }
    }
    notes_.push_back("the input does not say which parameters are in which group: all are put into one");
    ParamGroup one;
    std::set<std::string_view> seen;
    for (const size_t i : states_)
      if (seen.insert(tensor(i).name).second) one.names.push_back(tensor(i).name);
    if (const Value groups = source_->param_groups(); groups && groups.size() == 1)
      one.options = groups.at(0);
    return {one};
  }

  void new_key(const std::string& key) {
    if (!keys_.insert(key).second)
      throw refused("dcp.key", "two values come to this key, and a checkpoint holds one of each")
          .in_file(catalog_.path)
          .in_tensor(key)
          .hint("--drop leaves one of them out");
  }

  const Catalog& catalog_;
  const WriteRequest& request_;
  std::vector<std::string>& notes_;
  const std::shared_ptr<const deepspeed::SourceObjects> source_;
  Content content_;
  std::vector<size_t> weights_, states_;  // indices into the request
  std::vector<std::pair<std::string, size_t>> others_;
  std::unordered_map<std::string, size_t> weight_of_;  // name -> place in weights_
  std::set<size_t> used_others_;                       // those that are options
  std::set<std::string> keys_, seen_states_;
  size_t both_ = 0;
  bool is_adam_ = false;
};

}  // namespace

Content usual_content(const Catalog& catalog, const WriteRequest& request, std::vector<std::string>& notes) {
  return UsualContent(catalog, request, notes).make();
}

}  // namespace uckpt::dcp
