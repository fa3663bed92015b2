// Weights of few bits, whose numbers mean nothing without the scales that models keep beside them.
#pragma once

#include <string_view>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// The names of scales by those of their weights; views into the catalog.
using Scales = std::unordered_map<std::string_view, std::string_view>;
Scales scales_of_quantized(const Catalog& catalog);

// A cast of such a weight, which would not apply its scale.
Error quantized(const Catalog& catalog, const Tensor& weight, const Scales& scales, DType wanted);

}  // namespace uckpt
