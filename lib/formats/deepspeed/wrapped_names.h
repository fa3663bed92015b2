// Activation checkpointing as torch has it puts a module into a wrapper. The wrapper's part of a name,
// `_checkpoint_wrapped_module.`, is in the names of parameters and buffers, and not in the keys of a state
// dict.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace uckpt::deepspeed {

// The key that a state dict has for a parameter or buffer.
std::string state_dict_key(std::string_view name);

// The way back, for which the wrapped modules must be known.
class WrappedModules {
 public:
  // Takes note of those that a name of a parameter or buffer tells.
  void learn(std::string_view name);
  bool empty() const { return wrappers_.empty(); }
  // All that is in a wrapped module has the wrapper's part in its name.
  std::string name_of(std::string_view key) const;

 private:
  std::map<std::string, std::string, std::less<>> wrappers_;  // by the key up to there: what names have next
};

}  // namespace uckpt::deepspeed
