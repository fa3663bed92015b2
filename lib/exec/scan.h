// Reads tensors whole, range by range, on all cores and in bounded memory, and writes nothing: what `sum`,
// `verify`, `stats` and `diff` have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "lib/exec/filler.h"
#include "lib/exec/progress.h"

namespace uckpt::exec {

// The given tensors of a catalog, none of them an alias, each as one row-major range of bytes. It refers to
// the catalog. Throws what `make_plan` throws.
struct WholeTensors {
  const Catalog* catalog;
  TargetLayout layout;  // one shard and one hole a tensor, in their order
  plan::Plan plan;
};
WholeTensors whole_tensors(const Catalog& catalog, std::span<const uint32_t> tensors,
                           const plan::PlanOptions& options);

// Reads any range of them; one a thread.
class RangeReader {
 public:
  RangeReader(const WholeTensors& tensors, const Buffers& buffers);
  // `out` takes the units of the tensor (index into those asked for) from `begin` on.
  void read(uint32_t at, int64_t begin, std::span<uint8_t> out);

 private:
  const WholeTensors& tensors_;
  CpuFiller filler_;
};

struct ScanRange {
  uint32_t at;           // index into the tensors asked for
  int64_t begin, count;  // units (elements, but of types under a byte)
  ByteSpan bytes;
};
using ScanVisitor = std::function<void(const ScanRange&)>;

// What all the reading found.
struct Scanned {
  std::vector<uint64_t> digests;        // CRC-64 of each tensor; empty where not wanted
  std::vector<Difference> differences;  // one for each Plan::compared
  std::vector<Error> damaged;           // records of the input that differ from their checksums
};

struct ScanOptions {
  std::string_view doing = "reading";  // for the progress line
  bool digests = true;
};

// Every worker makes its own visitor (it may be null), and calls it for each range that it reads: ranges of
// one tensor come in any order, cut in the same places whatever the number of threads. Throws what a read
// throws, or a resumable error when stopped.
Scanned scan(const WholeTensors& tensors, const Buffers& buffers, const ScanOptions& options,
             const std::function<ScanVisitor()>& make_visitor, Progress& progress, const StopFlag& stop);

}  // namespace uckpt::exec
