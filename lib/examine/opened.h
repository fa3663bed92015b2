// A checkpoint opened to be read whole: what `sum`, `verify`, `diff` and `stats` begin with.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/convert/options.h"
#include "lib/convert/whole.h"
#include "lib/exec/progress.h"
#include "lib/exec/scan.h"

namespace uckpt {

struct ReadOptions {
  OpenOptions open;
  RuleOptions rules;
  Selection selection;
  int threads = 0;      // 0: one a core
  int64_t max_mem = 0;  // bytes of our own memory to read with; 0: a quarter of the machine's

  // To read these side by side.
  exec::Buffers buffers(std::span<const Catalog* const> catalogs) const;
  exec::Buffers buffers(const Catalog& catalog) const { return buffers(std::array{&catalog}); }
};

struct Opened {
  Catalog catalog;
  std::vector<uint32_t> tensors;    // the chosen ones, in catalog order, further names too
  std::vector<uint32_t> stored;     // those of them that have bytes of their own
  std::vector<uint32_t> stored_at;  // parallel to `tensors`: index into `stored`

  const Tensor& tensor(size_t i) const { return catalog.tensors[tensors[i]]; }
};

// Throws what opening throws, `tensor.refused` for a chosen tensor that cannot be read, and
// `select.nothing`. Copies of a type that cannot be compared with their tensor are left out.
Opened open_to_read(const std::string& path, const ReadOptions& options);

}  // namespace uckpt
