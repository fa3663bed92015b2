// How far a run came, kept beside the output behind its claim: an interrupted run goes on from there.
//
// The journal says what the run is (lines of text: version, request, plan, inputs), where everything lies in
// files that a library made, and then which tasks are finished and what they found. A finished task is
// written down only after its bytes are synced. Each record has its own length and CRC-32; a torn or damaged
// end counts for nothing.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lib/exec/findings.h"
#include "lib/io/claim.h"
#include "lib/io/output.h"

namespace uckpt::exec {

// Which file stands at a path.
struct FileIdentity {
  uint64_t device = 0, inode = 0;
  bool operator==(const FileIdentity&) const = default;
};
FileIdentity identity_of(const std::string& path);  // zeros where there is none

class Journal {
 public:
  // Reads what is there.
  explicit Journal(const Claim& claim);

  // What the interrupted run was; empty: there was none.
  const std::vector<std::string>& run() const { return run_; }
  // Where everything lies in files that a library made, by file of the layout.
  struct Made {
    uint32_t file;
    MadeFile made;
  };
  const std::vector<Made>& made() const { return made_; }
  bool has_finished_tasks() const { return finished_ > 0; }
  // Was the run finished, so that what lies at the output's path is what it made?
  bool was_committed_to(const std::string& path) const;
  // Every finished task and what it found, in the order of the journal.
  using Visitor = std::function<void(uint32_t task, std::span<const Finding> findings)>;
  void replay(const Visitor& visit) const;

  void forget();  // nothing was there
  void begin(const std::vector<std::string>& run, const std::vector<Made>& made);
  void append_tasks(ByteSpan records, bool sync);
  void append_commit(const FileIdentity& temporary);

 private:
  void put(const Bytes& payload);
  const Claim& claim_;
  std::vector<std::string> run_;
  std::vector<Made> made_;
  FileIdentity committed_;
  size_t finished_ = 0;
  int64_t end_ = Claim::kOwnerBytes;  // of the last good record
};

// Brings finished tasks into the journal, in the background of a run: whenever a good deal is finished, the
// output is synced and what is finished is written down.
class JournalKeeper {
 public:
  // A sync for about every `interval` bytes. Without `sync` what is written down outlives the process, not
  // the machine.
  JournalKeeper(Journal& journal, const Output& output, int64_t interval, bool sync);
  ~JournalKeeper();

  // Thread-safe; waits where the disk is far behind. Throws what went wrong in the background.
  void finished(uint32_t task, int64_t bytes, std::span<const Finding> findings);
  // All that is finished is written down; no task may be running. Throws.
  void flush();
  void flush_if_possible() noexcept;  // the same, where something else went wrong already

 private:
  void run();
  void write_down(Bytes records);
  Journal& journal_;
  const Output& output_;
  const int64_t interval_;
  const bool sync_;
  std::mutex mutex_;
  std::condition_variable to_keeper_, to_workers_;
  Bytes pending_;
  int64_t pending_bytes_ = 0;  // of output that they tell of
  bool ending_ = false;
  std::exception_ptr failure_;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace uckpt::exec
