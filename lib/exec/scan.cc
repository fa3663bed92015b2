#include "lib/exec/scan.h"

#include <memory>

#include "lib/base/checked.h"
#include "lib/base/phases.h"
#include "lib/exec/workers.h"
#include "lib/io/direct.h"

namespace uckpt::exec {

WholeTensors whole_tensors(const Catalog& catalog, std::span<const uint32_t> tensors,
                           const plan::PlanOptions& options) {
  WholeTensors out{&catalog, {}, {}};
  out.layout.files.push_back({"", 0, {}, {}});
  int64_t& size = out.layout.files[0].size;
  for (const uint32_t t : tensors) {  // each from a page on, so that its tasks are cut from its beginning
    const uint32_t shard = out.layout.add_whole_shard(catalog, t);
    size = ceil_div(size, kPageBytes) * kPageBytes;
    out.layout.holes.push_back({shard, 0, size, 0, out.layout.shards[shard].numel, catalog.tensors[t].dtype});
    size += out.layout.holes.back().bytes();
  }
  enter_phase("plan");
  out.plan = plan::make_plan(catalog, out.layout, options);
  return out;
}

RangeReader::RangeReader(const WholeTensors& tensors, const Buffers& buffers)
    : tensors_(tensors),
      filler_(*tensors.catalog, tensors.layout, tensors.plan, {.hole_digests = false}, nullptr, buffers) {}

void RangeReader::read(uint32_t at, int64_t begin, std::span<uint8_t> out) {
  const auto item = static_cast<size_t>(unit_size(tensors_.layout.holes[at].dtype));
  filler_.fill(at, begin, static_cast<int64_t>(out.size() / item), out);
  filler_.findings().clear();
}

namespace {

class Scanner {
 public:
  Scanner(const WholeTensors& tensors, const Buffers& buffers, const Totals::Wanted& wanted, Totals& totals,
          ScanVisitor visit, Progress& progress)
      : tensors_(tensors),
        totals_(totals),
        visit_(std::move(visit)),
        progress_(progress),
        filler_(*tensors.catalog, tensors.layout, tensors.plan, wanted, nullptr, buffers) {}

  void read(const Task& task) {
    const bool is_part = task.first_hole == task.last_hole;
    for (uint32_t h = task.first_hole; h <= task.last_hole; ++h) {
      const Hole& hole = tensors_.layout.holes[h];
      const int64_t begin = is_part ? task.begin : 0, count = (is_part ? task.end : hole.count) - begin;
      buffer_.resize(static_cast<size_t>(count * unit_size(hole.dtype)));
      if (count > 0) filler_.fill(h, begin, count, buffer_);
      if (visit_) visit_({h, begin, count, buffer_});
      finish(static_cast<int64_t>(buffer_.size()));
    }
  }
  void check(const plan::CheckRead& read) {
    filler_.check(read);
    finish(read.size);
  }

 private:
  void finish(int64_t bytes) {
    totals_.add(filler_.findings().all());
    filler_.findings().clear();
    progress_.advance(bytes);
  }

  const WholeTensors& tensors_;
  Totals& totals_;
  ScanVisitor visit_;
  Progress& progress_;
  CpuFiller filler_;
  Bytes buffer_;
};

}  // namespace

Scanned scan(const WholeTensors& tensors, const Buffers& buffers, const ScanOptions& options,
             const std::function<ScanVisitor()>& make_visitor, Progress& progress, const StopFlag& stop) {
  const plan::Plan& plan = tensors.plan;
  const Totals::Wanted wanted{.hole_digests = options.digests};
  Totals totals(*tensors.catalog, tensors.layout, plan, wanted);
  const std::vector<Task> tasks = cut_tasks(*tensors.catalog, tensors.layout, plan, buffers);
  enter_phase("read", bytes_to_do(plan));
  progress.begin(options.doing, bytes_to_do(plan));
  run_workers(buffers.threads, tasks.size() + plan.check_reads.size(), stop, [&] {
    auto scanner = std::make_shared<Scanner>(tensors, buffers, wanted, totals,
                                             make_visitor ? make_visitor() : ScanVisitor(), progress);
    return [&tasks, &plan, scanner](size_t i) {
      if (i < tasks.size()) {
        scanner->read(tasks[i]);
      } else {
        scanner->check(plan.check_reads[i - tasks.size()]);
      }
    };
  });
  progress.end();

  Scanned out;
  if (options.digests)
    for (uint32_t h = 0; h < tensors.layout.holes.size(); ++h) out.digests.push_back(totals.hole_digest(h));
  for (uint32_t i = 0; i < plan.compared.size(); ++i) out.differences.push_back(totals.difference(i));
  out.damaged = totals.damaged_records();
  return out;
}

}  // namespace uckpt::exec
