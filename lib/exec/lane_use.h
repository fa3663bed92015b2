// A lane as tasks use it: which part of its input is free, and what it owes them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lib/exec/direct_files.h"
#include "lib/exec/findings.h"
#include "lib/kernels/lane.h"

namespace uckpt::exec {

class LaneUse {
 public:
  // `direct` may be null: all goes through the host's memory.
  LaneUse(kernels::Lane& lane, Findings& findings, DirectFiles* direct = nullptr)
      : lane_(lane), findings_(findings), direct_(direct) {}

  kernels::Lane& operator*() const { return lane_; }
  kernels::Lane* operator->() const { return &lane_; }
  // Most bytes to stage at once.
  int64_t room() const;
  // Where in the input that many bytes are free until they are uploaded and used. Settles where none are.
  int64_t stage(int64_t bytes, int64_t alignment = 64);
  // Where these bytes of a file are in the device's input, and nowhere else; nothing: read and upload them.
  std::optional<int64_t> read_direct(const Catalog& catalog, FileId file, int64_t offset, int64_t bytes);
  std::span<uint8_t> staged(int64_t at, int64_t bytes) const;

  // The lane's result `crc`, of the kind that `of` is, becomes a finding: of bytes that so many others
  // follow.
  void await_crc(FindingOf of, uint32_t index, int result, int64_t bytes_after);
  // Its result of a comparison: how a copy (Plan::compared) differs in elements of the shard from `first` on,
  // in a row or not.
  void await_differences(uint32_t compared, int result, int64_t first, bool in_a_row);
  // Waits for all that is queued.
  void settle();

 private:
  struct Owed {
    FindingOf of;
    bool in_a_row;
    uint32_t index;
    int result;
    int64_t place;  // bytes after, or the first element
  };
  void await(const Owed& owed);
  void settle(const Owed& owed);

  kernels::Lane& lane_;
  Findings& findings_;
  DirectFiles* const direct_;
  int64_t used_ = 0;  // of the input
  std::vector<Owed> owed_;
};

}  // namespace uckpt::exec
