// Kernels on elements in memory: strided copies, value transforms, comparison with a rounded copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/kernels/nest.h"
#include "lib/tensor/catalog.h"

namespace uckpt::kernels {

// dst[…] = src[…] for every index of the loops, whose order does not matter: they are merged and put into the
// order that suits the caches. Elements are `item` bytes, any size. The two ranges do not overlap, and no
// byte of `dst` is written twice.
void copy_strided(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, size_t item);

// In place: byte order, conjugation, negation as `flags` (PieceFlags) say, on `count` elements back to back,
// of whole bytes each.
void apply_flags(uint8_t* data, int64_t count, DType dtype, uint8_t flags);

struct Differences {
  int64_t count = 0;
  int64_t first = -1;  // element index of the first one
};

// Compares `count` elements back to back: does `wide`, rounded to the nearest even of `narrow_dtype`, equal
// `narrow`? All NaNs are equal. Same types compare bit by bit but for NaNs of floats.
Differences compare_rounded(const uint8_t* wide, DType wide_dtype, const uint8_t* narrow, DType narrow_dtype,
                            int64_t count);
// Can these two types be compared so?
bool comparable(DType wide, DType narrow);

}  // namespace uckpt::kernels
