// Strided copies, with and without a cast, as boxes: the shape of the work is settled on the host, so that a
// thread finds its place by a few multiplications. Boxes that follow each other are one launch.
#pragma once

#include <cstdint>

#include "lib/kernels/cuda/anywhere.h"
#include "lib/kernels/nest.h"
#include "lib/tensor/dtype.h"

namespace uckpt::kernels::cuda {

inline constexpr int kBoxSteps = 5;

// A loop with its division prepared; the last one runs fastest. Strides in bytes.
struct BoxStep {
  uint32_t count = 1;
  Divider by;
  int64_t src = 0, dst = 0;
};
inline BoxStep step_of(const CopyLoop& loop) {
  const auto count = static_cast<uint32_t>(loop.count);
  return {count, divider_of(count), loop.src_stride, loop.dst_stride};
}

enum class Way : uint8_t {
  kRuns,   // bytes that lie together on both sides, by the vectors of the destination
  kItems,  // small items one by one
  kTiles,  // small items whose last two loops are turned: through a tile, in the order of each side
  kCasts,  // elements that lie together on both sides, each to another type, by the destination's vectors
};

struct Box {
  const uint8_t* src = nullptr;
  uint8_t* dst = nullptr;
  int64_t run = 1;     // kRuns: bytes; kCasts: elements
  uint32_t total = 0;  // parts of all runs, items or tiles: under 2^31
  uint32_t parts = 1;  // of one run
  Divider by_parts;
  Way way = Way::kRuns;
  uint8_t item = 1;  // kItems, kTiles: 1, 2, 4, 8 or 16 bytes
  uint8_t pack = 1;  // kItems: so many, which lie together in the destination, by a thread
  uint8_t steps = 0;
  bool wide_src = false, wide_dst = false;               // kTiles of items under 4 bytes: by words of 4
  DType src_dtype = DType::kU8, dst_dtype = DType::kU8;  // kCasts
  BoxStep step[kBoxSteps];
};

struct Places {
  int64_t src = 0, dst = 0;
};
UCKPT_ANYWHERE Places places_of(const Box& box, int steps, uint32_t index) {
  Places at;
  UCKPT_LOOP
  for (int s = steps - 1; s >= 0; --s) {
    const BoxStep& step = box.step[s];
    const uint32_t next = s == 0 ? 0 : quotient(index, step.by), rest = index - next * step.count;
    at.src += rest * step.src;
    at.dst += rest * step.dst;
    index = next;
  }
  return at;
}

// The same with the two last steps in registers, for many places.
class PlacesOf {
 public:
  UCKPT_ANYWHERE explicit PlacesOf(const Box& box) : box_(box), rest_(box.steps > 2 ? box.steps - 2 : 0) {
    if (box.steps > 0) last_ = box.step[box.steps - 1];
    if (box.steps > 1) before_ = box.step[box.steps - 2];
  }
  UCKPT_ANYWHERE Places operator()(uint32_t index) const {
    Places at;
    uint32_t next = quotient(index, last_.by);
    const uint32_t in_last = index - next * last_.count;
    uint32_t in_before = next;
    if (rest_ > 0) {
      next = quotient(next, before_.by);
      in_before -= next * before_.count;
      at = places_of(box_, rest_, next);
    }
    at.src += in_last * last_.src + in_before * before_.src;
    at.dst += in_last * last_.dst + in_before * before_.dst;
    return at;
  }

 private:
  const Box& box_;
  int rest_;
  BoxStep last_, before_;
};

// A tile has `kSide` items each way; a row of it is cells of 4 bytes or one item, and turned by its number of
// blocks of rows, so that neither the cells of a row nor those of a column meet in a bank.
template <int kItem>
struct TileShape {
  static constexpr int kCell = kItem < 4 ? 4 : kItem, kPack = kCell / kItem;
  static constexpr int kSide = kItem == 1 ? 128 : kItem <= 4 ? 64 : 32, kCells = kSide / kPack;
  static constexpr int kBytes = kSide * kCells * kCell;
  UCKPT_ANYWHERE static int place(int row, int cell) {
    return row * kCells + ((cell + row / kPack) & (kCells - 1));
  }
};
constexpr int tile_side(int item) { return item == 1 ? 128 : item <= 4 ? 64 : 32; }

inline constexpr int kPartsEach = 4;  // of runs and items, by a thread
inline uint32_t units_of(const Box& box) {
  const uint32_t each = box.way == Way::kTiles ? 1 : kPartsEach * kThreads;
  return box.total / each + (box.total % each != 0);
}

// Boxes of one launch, by value: no memory has to outlive the call that queues it. So many fit into what
// every device takes as arguments.
inline constexpr int kMostBoxes = 16;
struct Boxes {
  int count = 0;
  uint32_t first_unit[kMostBoxes] = {};
  Box box[kMostBoxes];
};
static_assert(sizeof(Boxes) <= 4000);

UCKPT_ANYWHERE int box_of_unit(const Boxes& all, uint32_t unit) {
  int low = 0;
  for (int high = all.count; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (all.first_unit[middle] <= unit)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// Vectors of the destination, of which a run's first and last may be parts.
UCKPT_ANYWHERE void copy_runs(const Box& box, uint32_t unit, int thread) {
  constexpr int kEach = kPartsEach;
  Vector value[kEach];
  uint8_t* to[kEach];            // the vector's address
  int begin[kEach], end[kEach];  // the bytes of it
  const uint32_t first = unit * (kEach * kThreads) + static_cast<uint32_t>(thread);
  UCKPT_UNROLL
  for (int j = 0; j < kEach; ++j) {
    const uint32_t k = first + static_cast<uint32_t>(j * kThreads);
    begin[j] = end[j] = 0;
    if (k >= box.total) continue;
    const uint32_t run = quotient(k, box.by_parts), part = k - run * box.parts;
    const Places at = places_of(box, box.steps, run);
    const uint8_t* const src = box.src + at.src;
    uint8_t* const dst = box.dst + at.dst;
    const auto lead = static_cast<int64_t>(address_of(dst) % kVector);
    const int64_t low = int64_t{part} * kVector - lead;  // of the vector in the run
    if (low >= box.run) continue;
    to[j] = dst + low;
    begin[j] = low < 0 ? static_cast<int>(-low) : 0;
    end[j] = box.run - low < kVector ? static_cast<int>(box.run - low) : kVector;
    value[j] = load_part(src + low, src, src + box.run);
  }
  UCKPT_UNROLL
  for (int j = 0; j < kEach; ++j) {
    if (begin[j] >= end[j]) continue;
    uint8_t* const p = to[j];
    if (end[j] - begin[j] == kVector) {
      store(p, value[j]);
      continue;
    }
    UCKPT_UNROLL
    for (int w = 0; w < 4; ++w) {
      const uint64_t half = w < 2 ? value[j].low : value[j].high;
      const auto word = static_cast<uint32_t>(half >> (32 * (w & 1)));
      if (begin[j] <= 4 * w && end[j] >= 4 * w + 4) {
        store(p + 4 * w, word);
        continue;
      }
      UCKPT_UNROLL
      for (int b = 0; b < 4; ++b)
        if (begin[j] <= 4 * w + b && end[j] > 4 * w + b) p[4 * w + b] = static_cast<uint8_t>(word >> (8 * b));
    }
  }
}

template <int kItem, int kPack>
UCKPT_ANYWHERE void copy_items(const Box& box, uint32_t unit, int thread) {
  constexpr int kEach = kPartsEach;
  using W = Word<kItem * kPack>;
  W value[kEach];
  uint8_t* to[kEach];
  const PlacesOf places(box);
  const uint32_t first = unit * (kEach * kThreads) + static_cast<uint32_t>(thread);
  const int64_t next = box.steps > 0 ? box.step[box.steps - 1].src / kPack : 0;  // of the packed ones
  UCKPT_UNROLL
  for (int j = 0; j < kEach; ++j) {
    const uint32_t k = first + static_cast<uint32_t>(j * kThreads);
    to[j] = nullptr;
    if (k >= box.total) continue;
    const Places at = places(k);
    to[j] = box.dst + at.dst;
    const uint8_t* from = box.src + at.src;
    if constexpr (kPack == 1) {
      value[j] = load<W>(from);
    } else {
      W packed = 0;
      UCKPT_UNROLL
      for (int p = 0; p < kPack; ++p)
        packed |= static_cast<W>(W{load<Word<kItem>>(from + p * next)} << (8 * kItem * p));
      value[j] = packed;
    }
  }
  UCKPT_UNROLL
  for (int j = 0; j < kEach; ++j)
    if (to[j] != nullptr) store(to[j], value[j]);
}

// Where a tile lies. The two last loops are that of the tile's columns, which steps least through the source,
// and that of its rows, which steps least through the destination.
template <int kItem>
struct Tile {
  const uint8_t* src;
  uint8_t* dst;
  int rows, columns;
  UCKPT_ANYWHERE Tile(const Box& box, uint32_t unit) {
    constexpr int kSide = TileShape<kItem>::kSide;
    const BoxStep &across = box.step[box.steps - 2], &down = box.step[box.steps - 1];
    const uint32_t across_tiles = (across.count + kSide - 1) / kSide,
                   down_tiles = (down.count + kSide - 1) / kSide;
    const uint32_t plane = unit / (across_tiles * down_tiles),
                   in_plane = unit - plane * across_tiles * down_tiles;
    const uint32_t d = in_plane / across_tiles, a = in_plane - d * across_tiles;
    const Places at = places_of(box, box.steps - 2, plane);
    const int64_t r = int64_t{d} * kSide, c = int64_t{a} * kSide;
    src = box.src + at.src + r * down.src + c * across.src;
    dst = box.dst + at.dst + r * down.dst + c * across.dst;
    rows = static_cast<int>(down.count - r < kSide ? down.count - r : kSide);
    columns = static_cast<int>(across.count - c < kSide ? across.count - c : kSide);
  }
};

// One thread's part of reading a tile: one column of cells, every kStep-th row of it.
template <int kItem>
UCKPT_ANYWHERE void load_cells(const Box& box, const Tile<kItem>& tile, int thread, uint8_t* shared) {
  using Shape = TileShape<kItem>;
  using Cell = Word<Shape::kCell>;
  constexpr int kPack = Shape::kPack, kStep = kThreads / Shape::kCells, kRows = Shape::kSide / kStep,
                kEach = kRows < 8 ? kRows : 8;
  const int64_t row_stride = box.step[box.steps - 1].src;
  const int cell = thread % Shape::kCells, c = cell * kPack, items = tile.columns - c;  // from there on
  if (items <= 0) return;
  int r = thread / Shape::kCells;
  const uint8_t* from = tile.src + r * row_stride + c * box.step[box.steps - 2].src;
  UCKPT_LOOP
  for (int i = 0; i < kRows; i += kEach) {
    Cell value[kEach];
    UCKPT_UNROLL
    for (int j = 0; j < kEach; ++j) {
      if (r + j * kStep < tile.rows) {
        const uint8_t* const p = from + j * kStep * row_stride;
        if (items >= kPack) {
          value[j] = load<Cell>(p);
        } else if constexpr (kPack > 1) {
          Cell some = 0;
          UCKPT_UNROLL
          for (int k = 0; k < kPack - 1; ++k)
            if (k < items) some |= Cell{load<Word<kItem>>(p + k * kItem)} << (8 * kItem * k);
          value[j] = some;
        }
      }
    }
    UCKPT_UNROLL
    for (int j = 0; j < kEach; ++j)
      if (r + j * kStep < tile.rows)
        store(shared + Shape::place(r + j * kStep, cell) * Shape::kCell, value[j]);
    r += kEach * kStep;
    from += kEach * kStep * row_stride;
  }
}
// The same by items.
template <int kItem>
UCKPT_ANYWHERE void load_items(const Box& box, const Tile<kItem>& tile, int thread, uint8_t* shared) {
  using Shape = TileShape<kItem>;
  using Item = Word<kItem>;
  constexpr int kPack = Shape::kPack, kStep = kThreads / Shape::kSide, kRows = Shape::kSide / kStep,
                kEach = 8;
  const int64_t row_stride = box.step[box.steps - 1].src;
  const int c = thread % Shape::kSide;
  if (c >= tile.columns) return;
  int r = thread / Shape::kSide;
  const uint8_t* from = tile.src + r * row_stride + c * box.step[box.steps - 2].src;
  UCKPT_LOOP
  for (int i = 0; i < kRows; i += kEach) {
    Item value[kEach];
    UCKPT_UNROLL
    for (int j = 0; j < kEach; ++j)
      if (r + j * kStep < tile.rows) value[j] = load<Item>(from + j * kStep * row_stride);
    UCKPT_UNROLL
    for (int j = 0; j < kEach; ++j)
      if (r + j * kStep < tile.rows)
        store(shared + Shape::place(r + j * kStep, c / kPack) * Shape::kCell + c % kPack * kItem, value[j]);
    r += kEach * kStep;
    from += kEach * kStep * row_stride;
  }
}
template <int kItem>
UCKPT_ANYWHERE void load_tile(const Box& box, uint32_t unit, int thread, uint8_t* shared) {
  const Tile<kItem> tile(box, unit);
  if constexpr (kItem < 4)
    if (!box.wide_src) return load_items<kItem>(box, tile, thread, shared);
  load_cells<kItem>(box, tile, thread, shared);
}

// One thread's part of writing it: of one block of rows, which are a cell in the destination, every kStep-th
// column of cells.
template <int kItem>
UCKPT_ANYWHERE void store_tile(const Box& box, uint32_t unit, int thread, const uint8_t* shared) {
  using Shape = TileShape<kItem>;
  using Cell = Word<Shape::kCell>;
  using Item = Word<kItem>;
  constexpr int kPack = Shape::kPack, kBlocks = Shape::kSide / kPack, kStep = kThreads / kBlocks;
  const Tile<kItem> tile(box, unit);
  const int64_t column_stride = box.step[box.steps - 2].dst, stride = box.step[box.steps - 1].dst;
  const int r = thread % kBlocks * kPack;
  if (r >= tile.rows) return;
  const bool whole = box.wide_dst && r + kPack <= tile.rows;
  int cell = thread / kBlocks;
  uint8_t* to = tile.dst + cell * kPack * column_stride + r * stride;
  UCKPT_LOOP
  for (int i = 0; i < Shape::kCells / kStep; i += 4) {
    UCKPT_UNROLL
    for (int j = 0; j < 4; ++j) {
      if constexpr (kPack == 1) {
        if (cell < tile.columns) store(to, load<Cell>(shared + Shape::place(r, cell) * Shape::kCell));
      } else {
        Cell rows[kPack];  // whose items are the columns'
        UCKPT_UNROLL
        for (int p = 0; p < kPack; ++p)
          rows[p] = load<Cell>(shared + Shape::place(r + p, cell) * Shape::kCell);
        UCKPT_UNROLL
        for (int q = 0; q < kPack; ++q) {
          if (cell * kPack + q >= tile.columns) continue;
          uint8_t* const column = to + q * column_stride;
          Cell turned = 0;
          UCKPT_UNROLL
          for (int p = 0; p < kPack; ++p)
            turned |= Cell{static_cast<Item>(rows[p] >> (8 * kItem * q))} << (8 * kItem * p);
          if (whole) {
            store(column, turned);
          } else {
            UCKPT_UNROLL
            for (int p = 0; p < kPack; ++p)
              if (r + p < tile.rows) store(column + p * stride, static_cast<Item>(turned >> (8 * kItem * p)));
          }
        }
      }
      cell += kStep;
      to += kStep * kPack * column_stride;
    }
  }
}

// Boxes of one way each have a kernel of their own, with the registers that it takes.
struct RunBody {
  using Args = Boxes;
  static constexpr int kPhases = 1, kBlocksEach = 4;
  struct Shared {};

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared&, int64_t unit, int thread) {
    const int b = box_of_unit(args, static_cast<uint32_t>(unit));
    copy_runs(args.box[b], static_cast<uint32_t>(unit) - args.first_unit[b], thread);
  }
};

struct ItemBody {
  using Args = Boxes;
  static constexpr int kPhases = 1, kBlocksEach = 4;
  struct Shared {};

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared&, int64_t unit, int thread) {
    const int b = box_of_unit(args, static_cast<uint32_t>(unit));
    const Box& box = args.box[b];
    const uint32_t u = static_cast<uint32_t>(unit) - args.first_unit[b];
    if (box.pack == 4) return copy_items<1, 4>(box, u, thread);
    if (box.pack == 2) return copy_items<2, 2>(box, u, thread);
    switch (box.item) {
      case 1:
        return copy_items<1, 1>(box, u, thread);
      case 2:
        return copy_items<2, 1>(box, u, thread);
      case 4:
        return copy_items<4, 1>(box, u, thread);
      case 8:
        return copy_items<8, 1>(box, u, thread);
      default:
        return copy_items<16, 1>(box, u, thread);
    }
  }
};

// Tiles of items under 4 bytes, which take more registers, or of larger ones.
template <bool kNarrow>
struct TileBody {
  using Args = Boxes;
  static constexpr int kPhases = 2, kBlocksEach = kNarrow ? 3 : 4;
  struct Shared {
    alignas(kVector) uint8_t tile[TileShape<1>::kBytes];
  };

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared& shared, int64_t unit, int thread) {
    const int b = box_of_unit(args, static_cast<uint32_t>(unit));
    const Box& box = args.box[b];
    const uint32_t u = static_cast<uint32_t>(unit) - args.first_unit[b];
    if constexpr (kNarrow) {
      if (box.item == 1) return phase<kPhase, 1>(box, u, thread, shared);
      return phase<kPhase, 2>(box, u, thread, shared);
    } else {
      if (box.item == 4) return phase<kPhase, 4>(box, u, thread, shared);
      if (box.item == 8) return phase<kPhase, 8>(box, u, thread, shared);
      return phase<kPhase, 16>(box, u, thread, shared);
    }
  }

 private:
  template <int kPhase, int kItem>
  UCKPT_ANYWHERE static void phase(const Box& box, uint32_t unit, int thread, Shared& shared) {
    if constexpr (kPhase == 0)
      load_tile<kItem>(box, unit, thread, shared.tile);
    else
      store_tile<kItem>(box, unit, thread, shared.tile);
  }
};
static_assert(TileShape<1>::kBytes == 16384 && TileShape<2>::kBytes <= 16384 &&
              TileShape<4>::kBytes <= 16384 && TileShape<8>::kBytes <= 16384 &&
              TileShape<16>::kBytes <= 16384);

}  // namespace uckpt::kernels::cuda
