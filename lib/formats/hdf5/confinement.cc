#include "lib/formats/hdf5/confinement.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "lib/base/sanitized.h"

namespace uckpt::hdf5 {
namespace {

constexpr int kPipe = 3;

template <class Resource>
void set_limit(Resource resource, rlim_t value) {
  const rlimit limit{value, value};
  setrlimit(resource, &limit);
}

// Address space in use; the limit counts what was inherited too.
int64_t address_space() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  long long pages = 0;
  if (file) {
    if (std::fscanf(file, "%lld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * sysconf(_SC_PAGESIZE);
}

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;  // no filter
#endif

// Memory, reading, the pipe, and what libc and sanitizers do behind the scenes.
constexpr auto kHarmless = std::to_array<long>({
  SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_close, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx,
      SYS_fcntl, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk, SYS_futex,
      SYS_sched_yield, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_exit,
      SYS_exit_group, SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getcwd, SYS_uname, SYS_getrandom,
      SYS_getrusage, SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_readlinkat,
#if defined(__x86_64__)
      SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_time,
#endif
});

constexpr uint32_t kWritingFlags = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

sock_filter statement(uint16_t code, uint32_t value) { return {code, 0, 0, value}; }
sock_filter jump(uint16_t code, uint32_t value, uint8_t if_true, uint8_t if_false) {
  return {code, if_true, if_false, value};
}
sock_filter load(size_t at) { return statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(at)); }
constexpr size_t low_word_of_argument(size_t n) {
  return offsetof(seccomp_data, args) + n * sizeof(uint64_t);
}

const sock_filter kAllow = statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
const sock_filter kDeny = statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1 /* EPERM */);

// If the call is `number`: allowed when none of `bits` is set in its argument, else denied.
void allow_without_bits(std::vector<sock_filter>& program, long number, size_t argument, uint32_t bits) {
  program.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 4));
  program.push_back(load(low_word_of_argument(argument)));
  program.push_back(jump(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1));
  program.push_back(kDeny);
  program.push_back(kAllow);
}

std::vector<sock_filter> filter_program() {
  std::vector<sock_filter> program = {load(offsetof(seccomp_data, arch)),
                                      jump(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0), kDeny,
                                      load(offsetof(seccomp_data, nr))};
  for (const long number : kHarmless) {
    program.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    program.push_back(kAllow);
  }
  allow_without_bits(program, SYS_openat, 2, kWritingFlags);
#if defined(__x86_64__)
  allow_without_bits(program, SYS_open, 1, kWritingFlags);
  allow_without_bits(program, SYS_setrlimit, 0, 0);
#endif
  allow_without_bits(program, SYS_prlimit64, 0, 0xffffffff);  // of this process only
  program.push_back(kDeny);
  return program;
}

}  // namespace

int drop_inheritance(int pipe_fd) {
  constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP,  SIGQUIT, SIGSEGV, SIGBUS, SIGABRT,
                                   SIGFPE, SIGILL,  SIGXCPU, SIGTRAP, SIGUSR1, SIGUSR2};
  for (const int number : kSignals) std::signal(number, SIG_DFL);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);

  if (pipe_fd != kPipe) dup2(pipe_fd, kPipe);
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < kPipe; ++fd) dup2(null, fd);
  close_range(kPipe + 1, ~0U, 0);
  return kPipe;
}

void limit_resources(int cpu_seconds, int64_t memory_bytes) {
  set_limit(RLIMIT_CORE, 0);
  set_limit(RLIMIT_FSIZE, 0);
  set_limit(RLIMIT_NOFILE, 16);
  set_limit(RLIMIT_CPU, static_cast<rlim_t>(cpu_seconds));
  if (!kSanitized) set_limit(RLIMIT_AS, static_cast<rlim_t>(address_space() + memory_bytes));
}

void limit_system_calls() {
  if (kArchitecture == 0) return;
  std::vector<sock_filter> program = filter_program();
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

void forbid_opening() { set_limit(RLIMIT_NOFILE, 0); }

}  // namespace uckpt::hdf5
