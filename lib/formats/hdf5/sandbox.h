// A child process in which libhdf5 meets files from strangers.
//
// The library is not safe on damaged files, so what it does happens in a forked child that can read what it
// opens and write to one pipe: no other file, no other process, no memory or time without end. What comes out
// of the pipe is hearsay and is checked by whoever reads it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>

#include "lib/base/bytes.h"

namespace uckpt::hdf5 {

struct SandboxLimits {
  int cpu_seconds = 20;
  int wall_seconds = 120;
  int silence_seconds = 30;                 // the child must say something that often
  int64_t memory_bytes = int64_t{1} << 30;  // beyond what the process has; not under sanitizers
};

// The child's end of the pipe. Throws if the parent is gone.
class Outbox {
 public:
  explicit Outbox(int fd) : fd_(fd) {}
  void put(ByteSpan bytes);
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) { put({reinterpret_cast<const uint8_t*>(&value), sizeof value}); }
  void put_text(std::string_view text);  // length, bytes

  // From here on the process can open no file at all.
  void close_the_door();
  void end(std::string_view error);  // empty: all is well

 private:
  void flush();
  void send(uint8_t kind, ByteSpan bytes);
  int fd_;
  Bytes waiting_;
};

// Runs `work` in a child; the parent reads what it says. The destructor ends the child if it still runs.
class Sandbox {
 public:
  Sandbox(const std::function<void(Outbox&)>& work, const SandboxLimits& limits);
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  // Each throws refused (`hdf5.damaged`) if the child reports an error, dies, or is too slow.
  void get(std::span<uint8_t> out);
  template <class T>
  requires std::is_arithmetic_v<T> T get() {
    T value;
    get({reinterpret_cast<uint8_t*>(&value), sizeof value});
    return value;
  }
  std::string get_text(uint32_t max_bytes);
  void expect_end();  // the child has said all and was well

 private:
  using Clock = std::chrono::steady_clock;
  void read_raw(std::span<uint8_t> out);
  size_t read_some(std::span<uint8_t> out);
  void wait_readable();
  void next_frame();
  void reap(bool kill_first);
  [[noreturn]] void died();

  SandboxLimits limits_;
  Clock::time_point deadline_;
  pid_t child_ = -1;
  int status_ = 0;
  int fd_ = -1;
  Bytes buffer_;
  size_t buffer_at_ = 0, buffer_end_ = 0;
  uint32_t frame_left_ = 0;
  bool ended_ = false;
};

}  // namespace uckpt::hdf5
