#include "tools/signals.h"

#include <sys/time.h>

#include <csignal>

namespace uckpt::cli {
namespace {

StopFlag stop{false};
static_assert(StopFlag::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void on_signal(int) { stop = true; }

}  // namespace

const StopFlag& stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return stop;
}

void stop_after(int64_t seconds) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGALRM, &action, nullptr);
  itimerval time{};
  time.it_value.tv_sec = static_cast<time_t>(seconds);
  setitimer(ITIMER_REAL, &time, nullptr);
}

}  // namespace uckpt::cli
