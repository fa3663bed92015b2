// Parameters of like layers and experts, put together under one key.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/megatron/core/names.h"
#include "lib/formats/megatron/write/rank_parts.h"
#include "lib/pickle/value.h"

namespace uckpt::megatron {

struct Stack {
  struct Member {
    std::vector<int64_t> numbers;  // on the stack's axes
    const Held* held;
  };
  std::string key;
  Shape sizes;  // of its axes
  std::vector<Member> members;
  bool is_apart = false;  // its key has the layer's number, as the layers are not alike
};

// In the order of the parameters; tied names have the bytes of another and no stack. `args` may say that the
// layers differ (megatron-core's `non_homogeneous_layers`); they also do where their parameters do.
std::vector<Stack> stacks_of(const std::vector<Held>& held, const NameStyle& style,
                             const pickle::Value& args);

}  // namespace uckpt::megatron
