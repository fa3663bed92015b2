#include "lib/exec/read_tensor.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/exec/copy_rules.h"
#include "lib/exec/gather.h"
#include "lib/kernels/cpu_lane.h"
#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt {

void read_tensor(const Catalog& catalog, const Tensor& tensor, const std::function<void(ByteSpan)>& sink) {
  constexpr int64_t kStep = int64_t{8} << 20;
  const Tensor& source = tensor.alias ? catalog.tensors[*tensor.alias] : tensor;
  TargetLayout layout;
  layout.files.push_back({"", bytes_of(source), {}, {}});
  layout.add_whole_shard(catalog, static_cast<uint32_t>(&source - catalog.tensors.data()));
  layout.holes.push_back({0, 0, 0, 0, units_of(source), source.dtype});
  const int64_t total = bytes_of(source);
  plan::Plan plan = plan::make_plan(catalog, layout, {.check_crc = true, .compare_copies = false});
  // A small tensor in a large storage is not worth reading the storage for: then its checksum is left alone.
  if (plan.bytes_in > 2 * total + kStep)
    plan = plan::make_plan(catalog, layout, {.check_crc = false, .compare_copies = false});
  exec::Totals totals(catalog, layout, plan, {.hole_digests = false});
  exec::Findings findings;
  kernels::CpuLane cpu(exec::kStagingBytes);
  exec::LaneUse lane(cpu, findings);
  exec::Gatherer gatherer(catalog, plan, lane, findings);
  const int64_t step = round_up(kStep, std::max(1, item_size(source.dtype)));
  Bytes buffer;
  for (int64_t at = 0; at < total; at += step) {
    buffer.resize(static_cast<size_t>(std::min(step, total - at)));
    cpu.set_output(buffer);
    const exec::Range range{{kernels::Region::kOutput}, static_cast<int64_t>(buffer.size())};
    gatherer.fill(0, at, range.bytes, range.at, source.dtype, true);
    gatherer.finish(layout.shards[0], 0, at, range, source, true);
    sink(buffer);
  }
  for (const plan::CheckRead& read : plan.check_reads) gatherer.check(read);
  totals.add(findings.all());
  totals.throw_if_damaged();
}

}  // namespace uckpt
