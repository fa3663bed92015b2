#include "tools/profile.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "tools/output.h"

namespace uckpt::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Bytes a second of one thread, in memory beyond the caches, or as much as --max-mem leaves; the best of a
// few turns.
double memcpy_rate(size_t bytes = size_t{64} << 20) try {
  std::vector<char> from(bytes, 1), to(bytes, 2);
  double best = 0;
  for (size_t turn = 0; turn < 4; ++turn) {
    const auto begun = Clock::now();
    std::memcpy(to.data(), from.data(), bytes);
    const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    from[turn] = to[bytes - 1 - turn];
    best = std::max(best, static_cast<double>(bytes) / seconds);
  }
  return best;
} catch (const std::bad_alloc&) {
  return memcpy_rate(bytes / 2);
}

std::string number(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string gigabytes(double rate) { return number("%.2f GB/s", rate / 1e9); }

double seconds_of(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

}  // namespace

std::string profile_page() {
  const std::vector<Phase> all = phases();
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const double memcpy = memcpy_rate();
  double total = 0;
  for (const Phase& p : all) total += p.seconds;

  using enum Table::Align;
  Table table({kLeft, kRight, kRight, kRight, kRight, kRight});
  table.row({"PHASE", "SECONDS", "SHARE", "BYTES", "RATE", "OF MEMCPY"});
  for (const Phase& p : all) {
    std::vector<std::string> row = {p.name, number("%.3f", p.seconds),
                                    number("%.0f%%", total > 0 ? 100 * p.seconds / total : 0)};
    if (p.bytes > 0 && p.seconds > 0) {
      const double rate = static_cast<double>(p.bytes) / p.seconds;
      row.insert(row.end(), {human_bytes(static_cast<uint64_t>(p.bytes)), gigabytes(rate),
                             number("%.0f%%", 100 * rate / memcpy)});
    }
    row.resize(6);
    table.row(std::move(row));
  }
  table.row({"total", number("%.3f", total), "100%", "", "", ""});
  return cat(table.text(), "memcpy ", gigabytes(memcpy), " on one thread; processor ",
             number("%.2f s", seconds_of(used.ru_utime)), " here and ",
             number("%.2f s", seconds_of(used.ru_stime)), " in the system; memory ",
             human_bytes(static_cast<uint64_t>(used.ru_maxrss) << 10), " resident at most\n");
}

}  // namespace uckpt::cli
