#include "tools/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "lib/base/text.h"
#include "tools/output.h"

namespace uckpt::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array<std::pair<std::string_view, ProgressMode>, 5> kModes = {{
    {"auto", ProgressMode::kAuto},
    {"bar", ProgressMode::kBar},
    {"plain", ProgressMode::kPlain},
    {"json", ProgressMode::kJson},
    {"none", ProgressMode::kNone},
}};

bool on_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

size_t terminal_width() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

// "0:42", "1:02:03"
std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(std::clamp(seconds, 0.0, 1e7));
  const auto two = [](int64_t v) { return cat(v < 10 ? "0" : "", v); };
  if (s < 3600) return cat(s / 60, ":", two(s % 60));
  return cat(s / 3600, ":", two(s / 60 % 60), ":", two(s % 60));
}

struct State {
  std::string what;
  int64_t done = 0, total = 0;
  double seconds = 0;

  double share() const {
    return total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1;
  }
  double rate() const { return seconds > 0 ? static_cast<double>(done) / seconds : 0; }
  double left() const { return done > 0 ? static_cast<double>(total - done) / rate() : 0; }
  std::string numbers() const {
    const auto bytes = [](double v) { return human_bytes(static_cast<uint64_t>(std::max(0.0, v))); };
    std::string text = cat(static_cast<int>(share() * 100), "%, ", bytes(static_cast<double>(done)), " of ",
                           bytes(static_cast<double>(total)), ", ", bytes(rate()), "/s");
    if (done > 0) text += cat(", ", clock_text(left()), " left");
    return text;
  }
};

// How one mode shows the state; all calls come from one thread at a time.
class Style {
 public:
  virtual ~Style() = default;
  virtual std::chrono::milliseconds period() const = 0;
  virtual void show(const State& state) = 0;
  virtual void clear() {}  // before another line is written
};

class BarStyle final : public Style {
 public:
  std::chrono::milliseconds period() const override { return std::chrono::milliseconds(100); }
  void show(const State& state) override {
    const std::string left = cat(state.what, " "), right = cat(" ", state.numbers());
    const size_t width = terminal_width() - 1;
    std::string line = left;
    if (left.size() + right.size() + 12 <= width) {
      const size_t cells = std::min<size_t>(40, width - left.size() - right.size() - 2);
      const auto full = static_cast<size_t>(state.share() * static_cast<double>(cells));
      line += cat("[", std::string(full, '#'), std::string(cells - full, '.'), "]");
    }
    line += right;
    write_stderr(cat("\r", line.substr(0, width), "\x1b[K"));
    shown_ = true;
  }
  void clear() override {
    if (std::exchange(shown_, false)) write_stderr("\r\x1b[K");
  }

 private:
  bool shown_ = false;
};

class PlainStyle final : public Style {
 public:
  std::chrono::milliseconds period() const override { return std::chrono::seconds(30); }
  void show(const State& state) override {
    write_stderr(cat("uckpt: ", state.what, " ", state.numbers(), "\n"));
  }
};

class JsonStyle final : public Style {
 public:
  std::chrono::milliseconds period() const override { return std::chrono::seconds(1); }
  void show(const State& state) override {
    write_stderr(cat(R"({"uckpt": 1, "progress": {"what": )", json_string(state.what), R"(, "bytes": )",
                     state.done, R"(, "total": )", state.total, R"(, "seconds": )", state.seconds, "}}\n"));
  }
};

// Counts in the callers' threads, shows from one of its own.
class Reporter final : public Progress {
 public:
  Reporter(std::unique_ptr<Style> style, bool quiet) : style_(std::move(style)), quiet_(quiet) {}
  ~Reporter() override { stop(); }

  void begin(std::string_view what, int64_t total_bytes) override {
    stop();
    what_ = what;
    total_ = total_bytes;
    done_ = 0;
    started_ = Clock::now();
    if (!style_) return;
    stopping_ = false;
    thread_ = std::thread([this] { show_until_stopped(); });
  }
  void advance(int64_t bytes) override { done_.fetch_add(bytes, std::memory_order_relaxed); }
  void end() override { stop(); }
  void warn(std::string_view text) override {
    if (quiet_) return;
    const std::lock_guard lock(mutex_);
    if (style_) style_->clear();
    print_warning(text);
  }

 private:
  State state() const {
    return {what_, done_.load(std::memory_order_relaxed), total_,
            std::chrono::duration<double>(Clock::now() - started_).count()};
  }
  void show_until_stopped() {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, style_->period(), [this] { return stopping_; })) style_->show(state());
    style_->clear();
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::unique_ptr<Style> style_;
  bool quiet_;
  std::string what_;
  int64_t total_ = 0;
  std::atomic<int64_t> done_{0};
  Clock::time_point started_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = true;
  std::thread thread_;
};

std::unique_ptr<Style> make_style(ProgressMode mode) {
  switch (mode) {
    case ProgressMode::kAuto:
      return make_style(on_terminal() ? ProgressMode::kBar : ProgressMode::kPlain);
    case ProgressMode::kBar:
      return std::make_unique<BarStyle>();
    case ProgressMode::kPlain:
      return std::make_unique<PlainStyle>();
    case ProgressMode::kJson:
      return std::make_unique<JsonStyle>();
    case ProgressMode::kNone:
      return nullptr;
  }
  return nullptr;
}

}  // namespace

std::optional<ProgressMode> progress_mode(std::string_view name) {
  const auto at = std::ranges::find(kModes, name, &std::pair<std::string_view, ProgressMode>::first);
  if (at == kModes.end()) return std::nullopt;
  return at->second;
}

std::unique_ptr<Progress> make_progress(ProgressMode mode, bool quiet) {
  // A bar off a terminal would be line noise in somebody's log, whatever was asked.
  if (mode == ProgressMode::kBar && !on_terminal()) mode = ProgressMode::kPlain;
  return std::make_unique<Reporter>(make_style(mode), quiet);
}

}  // namespace uckpt::cli
