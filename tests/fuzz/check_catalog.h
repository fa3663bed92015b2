// What must hold of every catalog of one file, whatever the file is.
#pragma once

#include <cstdlib>

#include "lib/io/input.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// The pieces of each tensor that may be read have as many elements as it, and lie inside their files.
inline void check_catalog(const Catalog& catalog) {
  for (const Tensor& t : catalog.tensors) {
    if (t.alias && (*t.alias >= catalog.tensors.size() || catalog.tensors[*t.alias].alias)) std::abort();
    if (!t.refusal.empty() || t.alias) continue;
    int64_t elements = 0;
    for (const Piece& p : catalog.pieces_of(t.pieces)) {
      int64_t extent = 1, last = 0;
      for (const Axis& a : catalog.axes_of(p)) {
        extent *= a.extent;
        last += (a.extent - 1) * a.stride;
      }
      elements += extent;
      const int64_t size = p.file == kLiteral ? static_cast<int64_t>(catalog.literals.size())
                                              : catalog.files.at(p.file)->size();
      if (extent > 0 && (p.offset < 0 || p.offset + (last + 1) * unit_size(t.dtype) > size)) std::abort();
    }
    if (elements != units_of(t)) std::abort();
  }
}

}  // namespace uckpt
