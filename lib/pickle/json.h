// Views of a pickle to read: JSON text and a bounded tree. Both walk the graph with their own stacks.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "lib/pickle/value.h"

namespace uckpt::pickle {

// How a view shows a node that the file format knows to be a tensor.
struct TensorLabel {
  std::string dtype;  // "float32"; empty if unknown
  std::vector<int64_t> shape;
  std::string refusal;  // why it cannot be read, if it cannot
};
using TensorLookup = std::function<std::optional<TensorLabel>(const Value&)>;

// The whole of `value` as JSON, without line breaks: dicts as objects (keys by key_text), sequences and sets
// as arrays, objects as {"__class__": name, attributes…}, calls as {"__class__": name, "args": […]}, bytes as
// {"__bytes__": hex}, tensors as {"__tensor__": dtype, "shape": […]}, numpy arrays likewise with
// "__ndarray__" and up to 64 "values". Integers are exact, numbers that are not finite are strings, lone
// surrogates are escaped. Shared parts are written at each place: throws `limit.json_bytes` before that
// explodes and `pickle.cycle`.
std::string to_json(const Value& value, const Limits& limits, const TensorLookup& tensors = {});

// One value a line, indented, at most `max_lines`; shared parts once as `*n`, cycles as `<cycle>`, text
// escaped.
std::string to_tree(const Value& value, size_t max_lines = 1000, const TensorLookup& tensors = {});

}  // namespace uckpt::pickle
