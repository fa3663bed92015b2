#include "lib/base/phases.h"

#include <algorithm>
#include <chrono>

namespace uckpt {

namespace {

using Clock = std::chrono::steady_clock;

struct Record {
  std::vector<Phase> phases;
  size_t present = 0;
  Clock::time_point since = Clock::now();
};

Record& record() {
  static Record record{{{"start", 0, 0}}, 0, Clock::now()};
  return record;
}

void settle(Record& r) {
  const auto now = Clock::now();
  r.phases[r.present].seconds += std::chrono::duration<double>(now - r.since).count();
  r.since = now;
}

}  // namespace

void enter_phase(std::string_view name, int64_t bytes) {
  Record& r = record();
  settle(r);
  const auto at = std::ranges::find(r.phases, name, &Phase::name);
  r.present = static_cast<size_t>(at - r.phases.begin());
  if (at == r.phases.end()) r.phases.push_back({std::string(name), 0, 0});
  r.phases[r.present].bytes += bytes;
}

std::vector<Phase> phases() {
  settle(record());
  return record().phases;
}

}  // namespace uckpt
