// A Progress that says nothing and counts what has moved.
#pragma once

#include <atomic>

#include "lib/exec/progress.h"

namespace uckpt::test {

struct Quiet : Progress {
  void begin(std::string_view, int64_t) override {}
  void advance(int64_t bytes) override { moved += bytes; }
  void end() override {}
  void warn(std::string_view) override {}
  std::atomic<int64_t> moved{0};
};

}  // namespace uckpt::test
