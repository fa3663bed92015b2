#include "lib/formats/deepspeed/wrapped_names.h"

#include <algorithm>

namespace uckpt::deepspeed {

namespace {

constexpr std::string_view kWrapper = "_checkpoint_wrapped_module.";

// Takes the first part off a name, with its dot; the last part has none.
std::string_view take_part(std::string_view& name) {
  const std::string_view part = name.substr(0, std::min(name.find('.'), name.size() - 1) + 1);
  name.remove_prefix(part.size());
  return part;
}

}  // namespace

std::string state_dict_key(std::string_view name) {
  if (name.find(kWrapper) == name.npos) return std::string(name);
  std::string out;
  while (!name.empty())
    if (const std::string_view part = take_part(name); part != kWrapper) out += part;
  return out;
}

void WrappedModules::learn(std::string_view name) {
  if (name.find(kWrapper) == name.npos) return;
  std::string key, wrapper;
  while (!name.empty()) {
    const std::string_view part = take_part(name);
    if (part == kWrapper) {
      wrapper += part;
      continue;
    }
    if (!wrapper.empty()) wrappers_[key] = wrapper;
    wrapper.clear();
    key += part;
  }
}

std::string WrappedModules::name_of(std::string_view key) const {
  if (empty()) return std::string(key);
  std::string out;
  for (std::string_view rest = key; !rest.empty();) {
    const auto found = wrappers_.find(key.substr(0, key.size() - rest.size()));
    if (found != wrappers_.end()) out += found->second;
    out += take_part(rest);
  }
  return out;
}

}  // namespace uckpt::deepspeed
