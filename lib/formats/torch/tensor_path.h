// Walks over a pickle's graph with an explicit stack: where a node lies, what lies above others.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/pickle/document.h"

namespace uckpt::torch {

// The dotted path of the first place where `node` is met from the root ("model.0.weight"), empty if nowhere.
std::string path_to(const pickle::Document& document, uint32_t node);

// For each node, 1 if it or anything below it is a leaf in the sense of `is_leaf`.
std::vector<uint8_t> nodes_above(const pickle::Document& document,
                                 const std::function<bool(uint32_t)>& is_leaf);

}  // namespace uckpt::torch
