// A conversion from claim to commit, for tests of the executor.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>

#include "lib/exec/executor.h"
#include "tests/unit/exec/quiet_progress.h"
#include "tests/unit/exec/random_checkpoint.h"

namespace uckpt::test {

struct Converted {
  Bytes bytes;  // of the output
  exec::Outcome outcome;
};

// Into the file `out`, which must not be there yet or is replaced.
inline Converted convert_to(const fs::path& out, const Catalog& catalog, TargetLayout layout,
                            const exec::Buffers& buffers, const exec::RunOptions& options = {},
                            bool direct = false) {
  const plan::Plan plan = plan::make_plan(catalog, layout, {});
  Quiet progress;
  const StopFlag stop{false};
  const Claim claim(out.string());
  const auto output = make_output(claim, false, true, LeftOver::kDiscarded, direct);
  exec::preallocate(layout, *output, 2);
  Converted done;
  done.outcome = exec::run(catalog, layout, plan, *output, buffers, options, progress, stop);
  CHECK(progress.moved == exec::bytes_to_do(plan));
  exec::verify(catalog, layout, done.outcome, *output, buffers, progress, stop);
  output->commit(false);
  done.bytes = read_file(out);
  return done;
}

// What came of two ways to convert the same.
inline void check_same(const Converted& a, const Converted& b) {
  CHECK(a.bytes == b.bytes);
  CHECK(a.outcome.digests == b.outcome.digests);
  CHECK(a.outcome.checksums_checked == b.outcome.checksums_checked);
  REQUIRE(a.outcome.differences.size() == b.outcome.differences.size());
  for (size_t i = 0; i < a.outcome.differences.size(); ++i) {
    CHECK(a.outcome.differences[i].count == b.outcome.differences[i].count);
    CHECK(a.outcome.differences[i].first == b.outcome.differences[i].first);
  }
  REQUIRE(a.outcome.tensor_digests.size() == b.outcome.tensor_digests.size());
  for (size_t i = 0; i < a.outcome.tensor_digests.size(); ++i)
    CHECK(a.outcome.tensor_digests[i].crc64 == b.outcome.tensor_digests[i].crc64);
}

}  // namespace uckpt::test
