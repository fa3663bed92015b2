#include "lib/tensor/quantized.h"

#include "lib/base/text.h"

namespace uckpt {

Scales scales_of_quantized(const Catalog& catalog) {
  Scales scales, out;
  for (const Tensor& t : catalog.tensors) {
    const std::string_view name = t.name;
    for (const std::string_view ending : {"_scale_inv", "_scale"}) {
      if (!name.ends_with(ending)) continue;
      scales.emplace(name.substr(0, name.size() - ending.size()), name);
      break;
    }
  }
  if (scales.empty()) return out;
  for (const Tensor& t : catalog.tensors) {
    const auto scale = scales.find(t.name);
    if (is_float(t.dtype) && bits_of(t.dtype) <= 8 && scale != scales.end()) out.insert(*scale);
  }
  return out;
}

Error quantized(const Catalog& catalog, const Tensor& weight, const Scales& scales, DType wanted) {
  return refused("dtype.quantized",
                 cat("it is quantized, `", escape(scales.at(weight.name)), "` has its scale: a cast to ",
                     name_of(wanted), " would leave that out"))
      .in_file(catalog.path)
      .in_tensor(weight.path());
}

}  // namespace uckpt
