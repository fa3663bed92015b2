#include "lib/formats/hdf5/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <new>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/sanitized.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/confinement.h"
#include "lib/formats/hdf5/handle.h"

namespace uckpt::hdf5 {
namespace {

// A frame is its kind, its length, its bytes. Data frames are one stream.
enum FrameKind : uint8_t { kData = 'D', kError = 'E', kEnd = 'Z' };
constexpr size_t kHeaderBytes = 5, kFrameBytes = 64 << 10;
constexpr uint32_t kMaxErrorText = 4096;
constexpr int kPipeBytes = 1 << 20;

constexpr std::string_view kNoMemory = "not enough memory";

Error damaged(std::string message) { return refused("hdf5.damaged", std::move(message)); }

// The library does not survive it where memory is refused: a failure tells damage only where there was
// enough.
bool is_short_of_memory() {
  const int64_t limit = memory_limit();
  return limit > 0 && limit < SandboxLimits{}.memory_bytes;
}

Error failed(std::string_view how) {
  if (!is_short_of_memory()) return damaged(cat(how, ": the file is damaged"));
  return trouble("memory", cat(how, ": the ", human_bytes(static_cast<uint64_t>(memory_limit())),
                               " that this run may have are too little for it, or the file is damaged"))
      .hint("--max-mem allows more");
}

void silence_plugins() {
  setenv("HDF5_PLUGIN_PRELOAD", "::", 1);  // a file can ask for a filter plugin, that is, for code
  H5PLset_loading_state(0);
}

// The whole life of the child.
[[noreturn]] void live(int pipe_fd, const std::function<void(Outbox&)>& work,
                       const SandboxLimits& limits) noexcept {
  Outbox out(drop_inheritance(pipe_fd));
  try {
    limit_resources(limits.cpu_seconds, limits.memory_bytes);
    limit_system_calls();
    silence_plugins();
    silence_library();
    work(out);
    out.end("");
  } catch (const std::bad_alloc&) {
    out.end(kNoMemory);
  } catch (const Error& error) {
    out.end(error.message());
  } catch (...) {
    out.end("unexpected failure");
  }
  _exit(0);
}

bool write_all(int fd, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

void Outbox::put(ByteSpan bytes) {
  if (waiting_.size() + bytes.size() > kFrameBytes) flush();
  if (bytes.size() >= kFrameBytes) return send(kData, bytes);
  waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
}

void Outbox::put_text(std::string_view text) {
  put(static_cast<uint32_t>(text.size()));
  put({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

void Outbox::flush() {
  if (!waiting_.empty()) send(kData, waiting_);
  waiting_.clear();
}

void Outbox::send(uint8_t kind, ByteSpan bytes) {
  uint8_t header[kHeaderBytes];
  do {
    const ByteSpan part = bytes.first(std::min<size_t>(bytes.size(), 1 << 30));
    header[0] = kind;
    store_le(header + 1, static_cast<uint32_t>(part.size()));
    if (!write_all(fd_, header) || !write_all(fd_, part)) _exit(0);  // nobody listens any more
    bytes = bytes.subspan(part.size());
  } while (!bytes.empty());
}

void Outbox::close_the_door() { forbid_opening(); }

void Outbox::end(std::string_view error) {
  if (error.empty()) {
    flush();
    return send(kEnd, {});
  }
  error = error.substr(0, kMaxErrorText);
  send(kError, {reinterpret_cast<const uint8_t*>(error.data()), error.size()});
}

Sandbox::Sandbox(const std::function<void(Outbox&)>& work, const SandboxLimits& limits)
    : limits_(limits), deadline_(Clock::now() + std::chrono::seconds(limits.wall_seconds)) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw system_trouble("cannot make a pipe", "");
  {
    const std::lock_guard lock(library_mutex());
    {
      const HeapAcrossFork heap;
      child_ = ::fork();
    }
    if (child_ == 0) live(ends[1], work, limits);
  }
  ::close(ends[1]);
  fd_ = ends[0];
  if (child_ < 0) {
    const Error error = system_trouble("cannot start a process", "");
    ::close(fd_);
    throw error;
  }
  ::fcntl(fd_, F_SETPIPE_SZ, kPipeBytes);  // fewer turns; harmless if refused
}

Sandbox::~Sandbox() {
  reap(true);
  ::close(fd_);
}

void Sandbox::reap(bool kill_first) {
  if (child_ < 0) return;
  if (kill_first) ::kill(child_, SIGKILL);
  while (::waitpid(child_, &status_, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
}

void Sandbox::died() {
  reap(false);
  if (!WIFSIGNALED(status_)) throw damaged("the process that reads it ended early: the file is damaged");
  const int number = WTERMSIG(status_);
  if (number == SIGXCPU || number == SIGKILL)
    throw damaged(cat("reading it takes too long: expected at most ", limits_.cpu_seconds,
                      " seconds of processor time"));
  throw failed(cat("the HDF5 library failed on it (signal ", number, ")"));
}

void Sandbox::wait_readable() {
  const auto silence_ends = Clock::now() + std::chrono::seconds(limits_.silence_seconds);
  const auto until = std::min(silence_ends, deadline_);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) {
      reap(true);
      throw damaged(cat("reading it takes too long: no answer within ",
                        until == deadline_ ? limits_.wall_seconds : limits_.silence_seconds, " seconds"));
    }
    pollfd wanted{fd_, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(left));
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) throw system_trouble("cannot wait for a process", "");
  }
}

size_t Sandbox::read_some(std::span<uint8_t> out) {
  for (;;) {
    wait_readable();
    const ssize_t n = ::read(fd_, out.data(), out.size());
    if (n > 0) return static_cast<size_t>(n);
    if (n == 0) died();
    if (errno != EINTR) throw system_trouble("cannot read from a process", "");
  }
}

Inbox::Inbox() : buffer_(kFrameBytes) {}

// Small reads come out of a buffer, large ones straight from the pipe.
void Inbox::read_raw(std::span<uint8_t> out) {
  while (!out.empty()) {
    size_t n = std::min(out.size(), buffer_end_ - buffer_at_);
    if (n > 0) {
      std::memcpy(out.data(), buffer_.data() + buffer_at_, n);
      buffer_at_ += n;
    } else if (out.size() >= buffer_.size()) {
      n = read_some(out);
    } else {
      buffer_at_ = 0;
      buffer_end_ = read_some(buffer_);
    }
    out = out.subspan(n);
  }
}

void Inbox::next_frame() {
  uint8_t header[kHeaderBytes];
  read_raw(header);
  const auto length = load_le<uint32_t>(header + 1);
  if (header[0] == kData) {
    frame_left_ = length;
  } else if (header[0] == kEnd && length == 0) {
    ended_ = true;
  } else if (header[0] == kError && length <= kMaxErrorText) {
    std::string text(length, '\0');
    read_raw({reinterpret_cast<uint8_t*>(text.data()), text.size()});
    if (text == kNoMemory) throw failed("the HDF5 library ran out of memory");
    Error told = damaged(text);
    if (is_short_of_memory()) told.hint("--max-mem allows more, where too little memory is the reason");
    throw told;
  } else {
    throw damaged("the process that reads it answers nonsense: the file is damaged");
  }
}

void Inbox::get(std::span<uint8_t> out) {
  while (!out.empty()) {
    if (ended_) throw damaged("the process that reads it said too little: the file is damaged");
    if (frame_left_ == 0) {
      next_frame();
      continue;
    }
    const auto part = out.first(std::min<size_t>(out.size(), frame_left_));
    read_raw(part);
    frame_left_ -= static_cast<uint32_t>(part.size());
    out = out.subspan(part.size());
  }
}

std::string Inbox::get_text(uint32_t max_bytes) {
  const auto length = get<uint32_t>();
  if (length > max_bytes) throw damaged("the process that reads it answers nonsense: the file is damaged");
  std::string text(length, '\0');
  get({reinterpret_cast<uint8_t*>(text.data()), text.size()});
  return text;
}

void Inbox::expect_end() {
  if (frame_left_ == 0 && !ended_) next_frame();
  if (!ended_) throw damaged("the process that reads it said too much: the file is damaged");
}

}  // namespace uckpt::hdf5
