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

// The parent's end: what the child says. Each function throws refused (`hdf5.damaged`) if that is an error or
// nonsense.
class Inbox {
 public:
  Inbox();
  virtual ~Inbox() = default;
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  void get(std::span<uint8_t> out);
  template <class T>
  requires std::is_arithmetic_v<T> T get() {
    T value;
    get({reinterpret_cast<uint8_t*>(&value), sizeof value});
    return value;
  }
  std::string get_text(uint32_t max_bytes);
  void expect_end();  // the child has said all and was well

 protected:
  // Waits for bytes that were sent and returns how many it put into `out`: one at least. Throws if none will
  // come.
  virtual size_t read_some(std::span<uint8_t> out) = 0;

 private:
  void read_raw(std::span<uint8_t> out);
  void next_frame();
  Bytes buffer_;
  size_t buffer_at_ = 0, buffer_end_ = 0;
  uint32_t frame_left_ = 0;
  bool ended_ = false;
};

// Runs `work` in a child; the parent reads what it says, and also gets `hdf5.damaged` if the child dies or is
// too slow. The destructor ends the child if it still runs.
class Sandbox : public Inbox {
 public:
  Sandbox(const std::function<void(Outbox&)>& work, const SandboxLimits& limits);
  ~Sandbox() override;

 protected:
  size_t read_some(std::span<uint8_t> out) override;

 private:
  using Clock = std::chrono::steady_clock;
  void wait_readable();
  void reap(bool kill_first);
  [[noreturn]] void died();

  SandboxLimits limits_;
  Clock::time_point deadline_;
  pid_t child_ = -1;
  int status_ = 0;
  int fd_ = -1;
};

}  // namespace uckpt::hdf5
