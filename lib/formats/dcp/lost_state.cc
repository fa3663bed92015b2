#include "lib/formats/dcp/lost_state.h"

#include <algorithm>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/dcp/group_objects.h"
#include "lib/formats/dcp/write/content.h"

namespace uckpt::dcp {

namespace {

bool tells_iteration(const Catalog& catalog, const std::string& key) {
  return catalog.iteration && std::ranges::any_of(kIterationWords, [&](std::string_view word) {
           return is_iteration_key(key, word);
         });
}

// "3 tensors (ema.a, …)"
std::string counted(const std::vector<std::string_view>& keys, std::string_view what) {
  return cat(keys.size(), " ", what, keys.size() == 1 ? " (" : "s (", escape(keys.front()),
             keys.size() == 1 ? ")" : ", …)");
}

// Does a key end with "NAME.STATE" of a number that is a tensor in the catalog?
bool ends_with_one_of(std::string_view key, const std::unordered_set<std::string>& numbers) {
  for (size_t at = 0; at != std::string_view::npos; at = key.find('.', at)) {
    at += key[at] == '.';
    if (numbers.contains(std::string(key.substr(at)))) return true;
  }
  return false;
}

std::vector<std::string_view> lost_objects(const Catalog& catalog) {
  std::unordered_set<std::string> numbers;
  for (const Tensor& t : catalog.tensors)
    if (t.shape.empty() && !is_weight(t.state)) numbers.insert(cat(t.name, ".", t.state));
  std::vector<std::string_view> out;
  for (const Object& o : catalog.objects) {
    const bool is_kept = o.origin.ends_with(".metadata") || is_option(o.origin) ||
                         tells_iteration(catalog, o.origin) || ends_with_one_of(o.origin, numbers);
    if (!is_kept) out.push_back(o.origin);
  }
  return out;
}

}  // namespace

bool is_iteration_key(std::string_view key, std::string_view word) {
  return key.substr(key.rfind('.') + 1) == word && std::ranges::count(key, '.') < 2;
}

void tell_lost_state(const Catalog& catalog, std::span<const uint32_t> tensors,
                     std::vector<std::string>& notes) {
  std::vector<std::string_view> loose, objects;
  for (const uint32_t i : tensors) {
    if (i >= catalog.tensors.size()) continue;
    const Tensor& t = catalog.tensors[i];
    if (t.state == state::kOther && !is_option(t.name) && !tells_iteration(catalog, t.name))
      loose.push_back(t.name);
  }
  if (has_own_keys(catalog)) objects = lost_objects(catalog);
  if (loose.empty() && objects.empty()) return;
  notes.push_back(cat("left out, since there is a place for a model and its optimizer alone: ",
                      loose.empty() ? "" : counted(loose, "tensor"),
                      loose.empty() || objects.empty() ? "" : " and ",
                      objects.empty() ? "" : counted(objects, "object")));
}

}  // namespace uckpt::dcp
