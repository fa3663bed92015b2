// Copies of small items where the source runs on along another loop than the destination.
#pragma once

#include <cstdint>

namespace uckpt::kernels {

// dst[c · dst_row + r · item] = src[r · src_row + c · src_step] for r < rows, c < columns. Items of 1, 2, 4
// or 8 bytes; strides in bytes.
struct Plane {
  int64_t rows, columns;
  int64_t src_row, src_step, dst_row;
};
void transpose(uint8_t* dst, const uint8_t* src, const Plane& plane, int64_t item);

// dst[w][i] = src[i][w] and dst[i][w] = src[w][i] for w < ways, i < count; of 2, 3 or 4 ways. The side with
// `w` last is dense; on the other, `stride` bytes lie between the ways.
void take_apart(uint8_t* dst, int64_t stride, const uint8_t* src, int64_t ways, int64_t count, int64_t item);
void put_together(uint8_t* dst, const uint8_t* src, int64_t stride, int64_t ways, int64_t count,
                  int64_t item);
// dst[i] = src[i · ways]; nothing behind the last item is read.
void take_every(uint8_t* dst, const uint8_t* src, int64_t ways, int64_t count, int64_t item);

}  // namespace uckpt::kernels
