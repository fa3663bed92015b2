#include "lib/io/claim.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <thread>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {

namespace {

constexpr std::string_view kMagic = "uckpt journal 1\n";

// By `errno`.
Error cannot_create(const std::string& output) {
  const bool lacks_folder = errno == ENOENT;
  Error e = system_trouble("cannot create the output", output);
  const std::filesystem::path folder = std::filesystem::path(output).parent_path();
  std::error_code ignored;
  if (lacks_folder && !folder.empty() && !std::filesystem::exists(folder, ignored))
    e.hint(cat("there is no folder `", escape(folder.string()), "`: make it first"));
  return e;
}

std::string first_line_of(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  std::array<char, 128> text{};
  const ssize_t n = fd < 0 ? 0 : ::read(fd, text.data(), text.size());
  if (fd >= 0) ::close(fd);
  const std::string_view all(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
  return std::string(all.substr(0, all.find('\n')));
}

ClaimOwner this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return {::getpid(), host.data(), first_line_of("/proc/sys/kernel/random/boot_id")};
}

std::string text_of(const ClaimOwner& owner) {
  std::string text = cat(kMagic, "pid ", owner.pid, "\nhost ", owner.host.substr(0, 256), "\nboot ",
                         owner.boot_id.substr(0, 128), "\n");
  text.resize(static_cast<size_t>(Claim::kOwnerBytes), '\n');
  return text;
}

// Nobody, where there is no such text.
ClaimOwner read_owner(int fd) {
  std::string text(static_cast<size_t>(Claim::kOwnerBytes), '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  if (n != static_cast<ssize_t>(text.size()) || !text.starts_with(kMagic)) return {};
  const auto field = [&](std::string_view name) -> std::string {
    const size_t at = text.find(cat("\n", name, " "));
    if (at == std::string::npos) return {};
    const size_t begin = at + name.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
  };
  ClaimOwner owner{0, field("host"), field("boot")};
  const std::string pid = field("pid");
  std::from_chars(pid.data(), pid.data() + pid.size(), owner.pid);
  return owner;
}

bool is_alive(const ClaimOwner& owner, const ClaimOwner& me) {
  if (owner.pid <= 0 || owner == me) return false;
  if (owner.host != me.host) return true;  // nobody here can tell
  return owner.boot_id == me.boot_id && (::kill(static_cast<pid_t>(owner.pid), 0) == 0 || errno == EPERM);
}

enum class Lock { kTaken, kHeld, kUnknown };

// The lock goes with this descriptor alone, whatever other code does to the file, and with the process
// however that ends. Some file systems have no locks.
Lock lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (uninterrupted([&] { return ::fcntl(fd, F_OFD_SETLK, &whole); }) == 0) return Lock::kTaken;
  return errno == EAGAIN || errno == EACCES ? Lock::kHeld : Lock::kUnknown;
}

Error locked_error(const std::string& output, const ClaimOwner& owner) {
  std::string who;
  if (owner.pid > 0) who = cat(" (process ", owner.pid, " on ", escape(owner.host, 64), ")");
  return trouble("output.locked", cat("another uckpt is writing this output", who)).in_file(output);
}

}  // namespace

Claim::Claim(const std::string& output)
    : output_(output), file_(stage(output, "folder").journal), me_(this_process()) {
  take();
}

void Claim::take() {
  constexpr int kAttempts = 64;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    fd_ = uninterrupted(
        [&] { return ::open(file_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666); });
    if (fd_ < 0) throw cannot_create(output_);
    const Lock got = lock(fd_);
    last_ = read_owner(fd_);
    if (got == Lock::kHeld || (got == Lock::kUnknown && is_alive(last_, me_))) {
      ::close(fd_);
      fd_ = -1;
      // Whoever has just taken it has not written its name yet, or is just done.
      if (last_.pid == 0 && attempt + 1 < kAttempts) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      Error error = locked_error(output_, last_);
      if (last_.pid > 0 && last_.host != me_.host)
        error.hint(cat("if that process is gone for good, remove ", escape(file_)));
      throw error;
    }
    // Between open and lock another process may have finished and removed the file: then start again.
    if (same_file(fd_, file_)) {
      const std::string text = text_of(me_);
      try {
        write_all(fd_, 0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, output_);
      } catch (...) {
        if (last_.pid == 0) ::unlink(file_.c_str());
        ::close(fd_);
        throw;
      }
      return;
    }
    ::close(fd_);
    fd_ = -1;
  }
  throw locked_error(output_, {});
}

Claim::~Claim() {
  if (!kept_ && same_file(fd_, file_)) ::unlink(file_.c_str());
  ::close(fd_);
}

bool Claim::is_after_restart() const { return last_.boot_id != me_.boot_id || last_.host != me_.host; }

}  // namespace uckpt
