// What a running conversion tells, and how it is told to stop.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace uckpt {

// Told by the executor; `advance` comes from many threads.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void begin(std::string_view what, int64_t total_bytes) = 0;
  virtual void advance(int64_t bytes) = 0;
  virtual void end() = 0;
  virtual void warn(std::string_view text) = 0;  // one line, not an error
};

// Set by a signal handler; polled between tasks.
using StopFlag = std::atomic<bool>;

}  // namespace uckpt
