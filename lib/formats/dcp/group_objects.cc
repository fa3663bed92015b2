#include "lib/formats/dcp/group_objects.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/base/text.h"
#include "lib/formats/read_number.h"
#include "lib/io/input.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"

namespace uckpt::dcp {

namespace {

// "optim.param_groups.0.lr", or flattened: "param_groups.layers.0.weight.lr".
struct OptionKey {
  std::string prefix;  // "optim."
  std::string group;   // "0", or a parameter's name
  std::string option;
};

std::optional<OptionKey> parse(const std::string& key) {
  constexpr std::string_view kWord = "param_groups.";
  const size_t at = key.find(kWord);
  if (at == std::string::npos || (at > 0 && key[at - 1] != '.')) return std::nullopt;
  const size_t group = at + kWord.size(), dot = key.rfind('.');
  if (dot <= group || dot + 1 == key.size()) return std::nullopt;
  return OptionKey{key.substr(0, at), key.substr(group, dot - group), key.substr(dot + 1)};
}

std::optional<size_t> number_of(const std::string& text) {
  size_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(out) : std::nullopt;
}

// A tensor of the catalog as a pickle has tensors; its storage's key is its name.
Bytes pickle_of(const Tensor& tensor, const std::string& name) {
  pickle::Pickler out;
  const std::vector<int64_t> strides(tensor.shape.size(), 1);  // of one element
  out.tensor({tensor.dtype, name, 1, tensor.shape, strides, 0, false});
  return out.finish();
}

using Options = std::map<std::string, Bytes>;  // pickles, by name

struct Group {
  Options options;
  std::vector<std::string> names;  // where `params` is none of the options
};

// Groups that were saved as such; nothing where their numbers have gaps.
std::vector<Group> numbered(std::map<std::string, Options>& saved) {
  std::vector<Group> out(saved.size());
  for (auto& [name, options] : saved) {
    const auto number = number_of(name);
    if (!number || *number >= out.size() || !out[*number].options.empty()) return {};
    out[*number].options = std::move(options);
  }
  return out;
}

// Options that were saved with each parameter: those with the same ones make a group. They are in the order
// in which the weights are, and so are their names.
std::vector<Group> flattened(const Catalog& catalog, const std::map<std::string, Options>& saved) {
  std::vector<Group> out;
  std::set<std::string_view> taken;
  for (const Tensor& t : catalog.tensors) {
    if (!is_weight(t.state) || !taken.insert(t.name).second) continue;
    const auto at = saved.find(t.name);
    if (at == saved.end()) continue;
    auto same = std::ranges::find(out, at->second, &Group::options);
    if (same == out.end()) same = out.insert(out.end(), {at->second, {}});
    same->names.push_back(t.name);
  }
  return out;
}

}  // namespace

bool is_option(const std::string& key) { return parse(key).has_value(); }

SavedGroups read_param_groups(const Catalog& catalog) {
  std::map<std::string, Options> saved;  // by number, or by parameter
  std::set<std::string> prefixes;
  for (const Object& object : catalog.objects) {
    const auto key = parse(object.origin);
    if (!key || object.size == 0) continue;
    prefixes.insert(key->prefix);
    saved[key->group][key->option] = catalog.files[object.file]->read_range(object.offset, object.size);
  }
  // Numbers that are tensors, as a learning rate may be: the same ones have the same name, so that groups can
  // be told from them.
  std::map<std::pair<DType, Bytes>, std::string> names;
  for (const Tensor& t : catalog.tensors) {
    const auto key = t.state == state::kOther ? parse(t.name) : std::nullopt;
    if (!key || numel_of(t.shape) != 1 || item_size(t.dtype) == 0 || !t.refusal.empty()) continue;
    prefixes.insert(key->prefix);
    const std::string& name = names.try_emplace({t.dtype, read_number(catalog, t)}, t.name).first->second;
    saved[key->group][key->option] = pickle_of(t, name);
  }
  if (prefixes.size() != 1) return {};
  const bool is_numbered = number_of(saved.begin()->first).has_value();
  const std::vector<Group> groups = is_numbered ? numbered(saved) : flattened(catalog, saved);
  if (groups.empty()) return {};
  pickle::Pickler out;
  std::vector<std::unique_ptr<pickle::Document>> documents;
  out.begin_list();
  for (const Group& group : groups) {
    out.begin_dict();
    if (!group.options.contains("params")) {
      out.text("params");
      out.begin_list();
      for (const std::string& name : group.names) out.text(name);
      out.end_list();
    }
    for (const auto& [name, bytes] : group.options) {
      try {
        documents.push_back(pickle::parse_whole(bytes, {}));
        out.text(name);
        out.copy(documents.back()->root());
      } catch (Error& e) {
        throw e.in_member(cat("param_groups.*.", name)).in_file(catalog.path);
      }
    }
    out.end_dict();
  }
  out.end_list();
  return {pickle::parse_whole(out.finish(), {}), is_numbered || catalog.kind == "dcp"};
}

}  // namespace uckpt::dcp
