// THE SLOW REFERENCE, FOR TESTS ONLY: assembles tensors element by element, straight from the pieces'
// definition. Every fast path must equal it.
#pragma once

#include <cstring>

#include "lib/io/input.h"
#include "lib/tensor/catalog.h"

namespace uckpt::test {

inline Bytes naive_assemble(const Catalog& catalog, const Tensor& t) {
  const auto item = static_cast<size_t>(item_size(t.dtype));
  Bytes out(item * static_cast<size_t>(numel_of(t.shape)));
  for (const Piece& p : catalog.pieces_of(t.pieces)) {
    const auto axes = catalog.axes_of(p);
    int64_t volume = 1;
    for (const Axis& a : axes) volume *= a.extent;
    for (int64_t e = 0; e < volume; ++e) {
      int64_t rest = e, number = 0, offset = p.offset, weight = 1;
      for (size_t i = axes.size(); i-- > 0;) {
        const int64_t index = rest % axes[i].extent;
        rest /= axes[i].extent;
        number += (axes[i].start + index) * weight;
        offset += index * axes[i].stride * static_cast<int64_t>(item);
        weight *= axes[i].size;
      }
      uint8_t* to = out.data() + static_cast<size_t>(number) * item;
      if (p.file == kLiteral) {
        std::memcpy(to, catalog.literals.data() + offset, item);
      } else {
        catalog.files[p.file]->read_at(offset, {to, item});
      }
      if (p.flags & kByteSwapped) {  // a complex number is two floats, each swapped by itself
        const size_t part = info(t.dtype).kind == DTypeClass::kComplex ? item / 2 : item;
        for (size_t at = 0; at < item; at += part)
          for (size_t i = 0; i < part / 2; ++i) std::swap(to[at + i], to[at + part - 1 - i]);
      }
    }
  }
  return out;
}

}  // namespace uckpt::test
