#include "lib/exec/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/io/staging.h"
#include "lib/kernels/crc.h"

namespace uckpt::exec {

namespace {

enum RecordKind : uint8_t { kRun = 'R', kMade = 'M', kTask = 'T', kCommit = 'C' };

constexpr int64_t kFrameBytes = 8, kMostBytes = int64_t{256} << 20;  // of one record

class Packer {
 public:
  explicit Packer(RecordKind kind) { put<uint8_t>(kind); }
  template <class T>
  void put(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_le(bytes_.data() + at, value);
  }
  void put_text(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

// Gives zeros past the end, and remembers it.
class Unpacker {
 public:
  explicit Unpacker(ByteSpan bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    if (bytes_.size() < sizeof(T)) {
      good_ = false;
      return T{};
    }
    const T value = load_le<T>(bytes_.data());
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  std::string get_text() {
    const size_t size = get<uint32_t>();
    if (size > bytes_.size()) good_ = false;
    if (!good_) return {};
    std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }
  // How many there are, if there is room for them.
  uint32_t get_count(size_t item) {
    const auto count = get<uint32_t>();
    if (count > bytes_.size() / item) good_ = false;
    return good_ ? count : 0;
  }
  bool ended_well() const { return good_ && bytes_.empty(); }

 private:
  ByteSpan bytes_;
  bool good_ = true;
};

void put_frame(Bytes& out, const Bytes& payload) {
  const size_t at = out.size();
  out.resize(at + kFrameBytes);
  store_le(out.data() + at, static_cast<uint32_t>(payload.size()));
  store_le(out.data() + at + 4, kernels::crc32_raw(payload) ^ 0xffffffffu);
  out.insert(out.end(), payload.begin(), payload.end());
}

// Calls `visit(payload)` for each good record until it says no; tells where the last good one ends.
int64_t each_record(int fd, int64_t end, const std::function<bool(ByteSpan)>& visit) {
  Bytes payload;
  for (int64_t at = Claim::kOwnerBytes;;) {
    uint8_t frame[kFrameBytes];
    if (end - at < kFrameBytes || ::pread(fd, frame, kFrameBytes, at) != kFrameBytes) return at;
    const auto size = static_cast<int64_t>(load_le<uint32_t>(frame));
    if (size == 0 || size > kMostBytes || size > end - at - kFrameBytes) return at;
    payload.resize(static_cast<size_t>(size));
    if (::pread(fd, payload.data(), payload.size(), at + kFrameBytes) != size ||
        load_le<uint32_t>(frame + 4) != (kernels::crc32_raw(payload) ^ 0xffffffffu) || !visit(payload))
      return at;
    at += kFrameBytes + size;
  }
}

struct FinishedTask {
  uint32_t task = 0;
  std::vector<Finding> findings;
};

constexpr size_t kFindingBytes = 13;

Bytes packed(uint32_t task, std::span<const Finding> findings) {
  Packer record(kTask);
  record.put(task);
  record.put(static_cast<uint32_t>(findings.size()));
  for (const Finding& f : findings) {
    record.put(static_cast<uint8_t>(f.of));
    record.put(f.index);
    record.put(f.value);
  }
  return record.take();
}

bool unpack(ByteSpan payload, FinishedTask& out) {
  Unpacker record(payload.subspan(1));
  out.task = record.get<uint32_t>();
  out.findings.clear();
  for (uint32_t n = record.get_count(kFindingBytes); n > 0; --n) {
    const auto of = static_cast<FindingOf>(record.get<uint8_t>());
    const auto index = record.get<uint32_t>();
    out.findings.push_back({of, index, record.get<uint64_t>()});
  }
  return record.ended_well();
}

Bytes packed(const Journal::Made& made) {
  Packer record(kMade);
  record.put(made.file);
  record.put(made.made.size);
  record.put(static_cast<uint32_t>(made.made.hole_offsets.size()));
  for (const int64_t offset : made.made.hole_offsets) record.put(offset);
  record.put(static_cast<uint32_t>(made.made.digests.size()));
  for (const LateDigest& d : made.made.digests) {
    record.put(d.hole);
    record.put(d.offset);
  }
  return record.take();
}

bool unpack(ByteSpan payload, Journal::Made& out) {
  Unpacker record(payload.subspan(1));
  out.file = record.get<uint32_t>();
  out.made.size = record.get<int64_t>();
  for (uint32_t n = record.get_count(8); n > 0; --n) out.made.hole_offsets.push_back(record.get<int64_t>());
  for (uint32_t n = record.get_count(12); n > 0; --n) {
    const auto hole = record.get<uint32_t>();
    out.made.digests.push_back({hole, record.get<int64_t>()});
  }
  return record.ended_well();
}

}  // namespace

FileIdentity identity_of(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) return {};
  return {st.st_dev, st.st_ino};
}

Journal::Journal(const Claim& claim) : claim_(claim) {
  struct stat st {};
  if (::fstat(claim.fd(), &st) != 0) return;
  end_ = each_record(claim.fd(), st.st_size, [&](ByteSpan payload) {
    const bool is_first = run_.empty();
    if (is_first != (payload[0] == kRun)) return false;
    Unpacker record(payload.subspan(1));
    FinishedTask task;
    switch (payload[0]) {
      case kRun:
        for (uint32_t n = record.get_count(4); n > 0; --n) run_.push_back(record.get_text());
        return record.ended_well() && !run_.empty();
      case kMade:
        return unpack(payload, made_.emplace_back());
      case kTask:
        ++finished_;
        return unpack(payload, task);
      case kCommit:
        committed_.device = record.get<uint64_t>();
        committed_.inode = record.get<uint64_t>();
        return record.ended_well();
      default:
        return false;
    }
  });
}

bool Journal::was_committed_to(const std::string& path) const {
  return committed_ != FileIdentity{} && committed_ == identity_of(path);
}

void Journal::replay(const Visitor& visit) const {
  FinishedTask task;
  each_record(claim_.fd(), end_, [&](ByteSpan payload) {
    if (payload[0] != kTask) return true;
    if (unpack(payload, task)) visit(task.task, task.findings);
    return true;
  });
}

void Journal::forget() {
  run_.clear();
  made_.clear();
  committed_ = {};
  finished_ = 0;
  end_ = Claim::kOwnerBytes;
  if (uninterrupted([&] { return ::ftruncate(claim_.fd(), end_); }) != 0) throw write_error(claim_.output());
}

void Journal::put(const Bytes& records) {
  write_all(claim_.fd(), end_, records, claim_.output());
  end_ += static_cast<int64_t>(records.size());
}

void Journal::begin(const std::vector<std::string>& run, const std::vector<Made>& made) {
  forget();
  Packer record(kRun);
  record.put(static_cast<uint32_t>(run.size()));
  for (const std::string& line : run) record.put_text(line);
  Bytes records;
  put_frame(records, record.take());
  for (const Made& m : made) put_frame(records, packed(m));
  put(records);
  run_ = run;
  made_ = made;
}

void Journal::append_tasks(ByteSpan records, bool sync) {
  put({records.begin(), records.end()});
  ++finished_;
  if (sync) sync_data(claim_.fd(), claim_.output());
}

void Journal::append_commit(const FileIdentity& temporary) {
  Packer record(kCommit);
  record.put(temporary.device);
  record.put(temporary.inode);
  Bytes records;
  put_frame(records, record.take());
  put(records);
}

JournalKeeper::JournalKeeper(Journal& journal, const Output& output, int64_t interval, bool sync)
    : journal_(journal), output_(output), interval_(interval), sync_(sync), thread_([this] { run(); }) {}

JournalKeeper::~JournalKeeper() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  to_keeper_.notify_all();
}

void JournalKeeper::write_down(Bytes records) {
  if (records.empty()) return;
  if (sync_) output_.sync();
  journal_.append_tasks(records, sync_);
}

void JournalKeeper::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    to_keeper_.wait(lock, [&] { return ending_ || pending_bytes_ >= interval_; });
    if (ending_) return;
    Bytes records = std::exchange(pending_, {});
    pending_bytes_ = 0;
    lock.unlock();
    std::exception_ptr failure;
    try {
      write_down(std::move(records));
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    to_workers_.notify_all();
    if (!failure) continue;
    failure_ = failure;
    return;
  }
}

void JournalKeeper::finished(uint32_t task, int64_t bytes, std::span<const Finding> findings) {
  const Bytes record = packed(task, findings);
  std::unique_lock lock(mutex_);
  to_workers_.wait(lock, [&] { return failure_ || pending_bytes_ < 2 * interval_; });
  if (failure_) std::rethrow_exception(failure_);
  put_frame(pending_, record);
  pending_bytes_ += bytes;
  if (pending_bytes_ >= interval_) to_keeper_.notify_one();
}

void JournalKeeper::flush_if_possible() noexcept {
  try {
    flush();
  } catch (...) {  // then less is kept
  }
}

void JournalKeeper::flush() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    to_keeper_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (failure_) std::rethrow_exception(failure_);
  write_down(std::exchange(pending_, {}));
}

}  // namespace uckpt::exec
