#include "lib/formats/read_number.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/io/input.h"

namespace uckpt {

Bytes read_number(const Catalog& catalog, const Tensor& tensor) {
  const Tensor& t = tensor.alias ? catalog.tensors[*tensor.alias] : tensor;
  if (numel_of(t.shape) != 1 || t.pieces.count != 1)
    throw refused("number.shape", cat("expected one number, found ", shape_text(t.shape)))
        .in_file(catalog.path)
        .in_tensor(t.path());
  const Piece& piece = catalog.pieces_of(t.pieces)[0];
  Bytes out(static_cast<size_t>(item_size(t.dtype)));
  if (piece.file == kLiteral) {
    std::copy_n(catalog.literals.begin() + piece.offset, out.size(), out.begin());
  } else {
    catalog.files[piece.file]->read_at(piece.offset, out);
  }
  if (piece.flags & kByteSwapped) std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace uckpt
