// Who writes an output: one process at a time, told to the others, taken over from the dead.
//
// A claim is a hidden file beside the output, `.NAME.uckpt-journal`. Its first bytes say who holds it; an
// open-file-description lock on it goes with the process, however that ends. What stands behind the first
// bytes is a journal (lib/exec/journal.h) of how far an interrupted run came.
#pragma once

#include <cstdint>
#include <string>

#include "lib/io/staging.h"

namespace uckpt {

struct ClaimOwner {
  int64_t pid = 0;
  std::string host, boot_id;  // a process number says nothing on another host, or after another start of it

  bool operator==(const ClaimOwner&) const = default;
};

class Claim {
 public:
  static constexpr int64_t kOwnerBytes = 512;  // at the start of the file; the journal is behind them

  // Throws trouble: `output.locked` naming who holds it, or that the folder cannot be written.
  explicit Claim(const std::string& output);
  ~Claim();  // gives it back, and removes the file unless it is to be kept
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  int fd() const { return fd_; }
  const std::string& file() const { return file_; }
  const std::string& output() const { return output_; }
  // Who held it before and left it behind, if anyone.
  const ClaimOwner& last_owner() const { return last_; }
  // Was this machine started anew since then (or is it another one)? What was not synced may be lost.
  bool is_after_restart() const;
  void keep(bool kept) { kept_ = kept; }

 private:
  void take();
  std::string output_, file_;
  ClaimOwner me_, last_;
  int fd_ = -1;
  bool kept_ = false;
};

}  // namespace uckpt
