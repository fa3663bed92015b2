#include "lib/formats/plain_names.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/text.h"

namespace uckpt {

namespace {

const Tensor& tensor_at(const Catalog& catalog, const WriteRequest& request, size_t i) {
  return catalog.tensors[request.tensors[i]];
}

bool is_weight(const Tensor& t) {
  return t.state == state::kMaster || t.state == state::kParam || t.state == state::kBuffer;
}

std::vector<PlainTensor> chosen_states(const Catalog& catalog, const WriteRequest& request) {
  std::unordered_set<std::string_view> names;
  bool unique = true;
  for (size_t i = 0; i < request.tensors.size(); ++i)
    unique &= names.insert(tensor_at(catalog, request, i).name).second;
  std::vector<PlainTensor> out;
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    const Tensor& t = tensor_at(catalog, request, i);
    out.push_back({i, unique ? t.name : t.path()});
  }
  return out;
}

// "exp_avg, step"
std::string list_of(const std::map<std::string_view, size_t>& states) {
  std::string out;
  for (const auto& [state, count] : states) out += cat(out.empty() ? "" : ", ", escape(state));
  return out;
}

}  // namespace

std::vector<PlainTensor> plain_tensors(const Catalog& catalog, const WriteRequest& request,
                                       std::vector<std::string>& notes) {
  if (request.states_chosen) return chosen_states(catalog, request);
  std::unordered_map<std::string_view, size_t> taken;  // name -> index
  std::map<std::string_view, size_t> left_out;
  size_t masters = 0, both = 0;
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    const Tensor& t = tensor_at(catalog, request, i);
    if (!is_weight(t)) {
      ++left_out[t.state];
      continue;
    }
    const bool is_master = t.state == state::kMaster;
    masters += is_master;
    const auto [at, is_new] = taken.try_emplace(t.name, i);
    if (is_new) continue;
    ++both;
    if (is_master) at->second = i;
  }
  std::vector<PlainTensor> out;
  for (const auto& [name, i] : taken) out.push_back({i, std::string(name)});
  std::ranges::sort(out, {}, &PlainTensor::index);
  if (out.empty())
    throw refused("select.nothing", cat("it has no weights: found ", list_of(left_out)))
        .in_file(catalog.path)
        .hint("--states chooses what is written");
  if (!left_out.empty())
    notes.push_back(cat("left out, since the output holds one tensor a parameter: ", list_of(left_out)));
  if (masters > 0 && masters < out.size())
    notes.push_back(cat("of ", masters, " parameters the fp32 master is taken, of the others what there is"));
  if (both > 0) notes.push_back(cat(both, " module weights that differ from their masters are left out"));
  return out;
}

}  // namespace uckpt
