#include "lib/exec/journal.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "lib/exec/executor.h"
#include "lib/io/input.h"
#include "tests/unit/exec/quiet_progress.h"
#include "tests/unit/exec/random_checkpoint.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {

using test::Quiet;
using test::Scratch;

// Stops the run, as a signal does, once so much has moved.
struct Stopping : Quiet {
  int64_t after = 0;
  StopFlag stop{false};
  void advance(int64_t bytes) override {
    Quiet::advance(bytes);
    if (moved >= after) stop = true;
  }
};

// Blocks that differ. (Tests are not optimised: no loop over every byte.)
Bytes numbers(size_t size) {
  Bytes bytes(size), block(1 << 16);
  uint32_t x = 1;
  for (auto& b : block) b = static_cast<uint8_t>((x = x * 1664525 + 1013904223) >> 24);
  for (size_t at = 0; at < size; at += block.size()) {
    store_le(block.data(), static_cast<uint64_t>(at));
    std::memcpy(bytes.data() + at, block.data(), std::min(block.size(), size - at));
  }
  return bytes;
}

// A tensor of bytes, copied to one file or into a folder of two.
struct Conversion {
  explicit Conversion(bool folder, int64_t size) : bytes(numbers(static_cast<size_t>(size))) {
    Tensor t{};
    t.name = "t";
    t.state = "param";
    t.dtype = DType::kU8;
    t.shape = {size};
    const FileId file = catalog.add_file(std::make_shared<MemorySource>("in", bytes));
    catalog.add_flat(file, kNoRecord, 0, size, 0, size);
    t.pieces = catalog.pieces_since(0);
    catalog.tensors.push_back(t);
    layout.add_whole_shard(catalog, 0);
    if (folder) {
      layout.files = {{"a", size / 2, {}, {}}, {"sub/b", size - size / 2, {}, {}}};
      layout.holes = {{0, 0, 0, 0, size / 2, DType::kU8}, {0, 1, 0, size / 2, size - size / 2, DType::kU8}};
    } else {
      layout.files = {{"", size + 7, {{0, Bytes{'h', 'e', 'a', 'd', 'e', 'r', '!'}}}, {}}};
      layout.holes = {{0, 0, 7, 0, size, DType::kU8}};
    }
    plan = plan::make_plan(catalog, layout, {});
  }

  // Returns the exit code that the command would have; `continued` tells how many bytes were there already.
  int run(const std::string& path, int64_t stop_after) {
    Claim claim(path);
    exec::Journal journal(claim);
    const std::string temporary = stage(path, "folder").temporary;
    const bool continues = !journal.run().empty() && exec::can_continue(layout, journal, temporary);
    const auto output = make_output(claim, layout.is_folder(), false,
                                    continues ? LeftOver::kContinued : LeftOver::kDiscarded);
    if (continues) {
      exec::reopen(layout, *output, journal.made());
    } else {
      journal.begin({"one", "two\n"}, exec::preallocate(layout, *output, 2));
    }
    Stopping progress;
    progress.after = stop_after;
    try {
      exec::RunOptions options;
      options.journal = &journal;
      options.start_writeback = true;
      options.tensor_digests = true;
      const exec::Outcome outcome =
          exec::run(catalog, layout, plan, *output, exec::size_buffers({.threads = 2, .max_mem = 64 << 20}),
                    options, progress, progress.stop);
      continued = outcome.continued;
      digest = outcome.tensor_digests.at(0).crc64;
      hole_digests = outcome.digests;
      output->commit(false);
      return 0;
    } catch (const Error& e) {
      output->keep(journal.has_finished_tasks());
      claim.keep(journal.has_finished_tasks());
      return e.exit_code();
    }
  }

  Bytes bytes;
  Catalog catalog;
  TargetLayout layout;
  plan::Plan plan;
  int64_t continued = 0;
  uint64_t digest = 0;
  std::vector<uint64_t> hole_digests;
};

}  // namespace

TEST_CASE("a run that is stopped goes on where it was, to the same bytes and digests") {
  constexpr int64_t kSize = int64_t{120} << 20;
  for (const bool folder : {false, true}) {
    CAPTURE(folder);
    Scratch s;
    Conversion whole(folder, kSize), parts(folder, kSize);
    REQUIRE(whole.run(s.at("whole"), INT64_MAX) == 0);
    CHECK(parts.run(s.at("parts"), kSize / 4) == 3);
    CHECK(!fs::exists(s.at("parts")));
    CHECK(parts.run(s.at("parts"), kSize / 2) == 3);
    REQUIRE(parts.run(s.at("parts"), INT64_MAX) == 0);
    CHECK(parts.continued > kSize / 4);
    CHECK(parts.continued < kSize);
    for (const char* name : {"", "/a", "/sub/b"})
      if (fs::is_regular_file(s.at("whole") + name))
        CHECK(test::read_file(s.at("whole") + name) == test::read_file(s.at("parts") + name));
    CHECK(parts.digest == whole.digest);
    CHECK(parts.hole_digests == whole.hole_digests);
    CHECK(std::distance(fs::directory_iterator(s.path), {}) == 2);
  }
}

TEST_CASE("a torn or damaged end of a journal counts for nothing") {
  constexpr int64_t kSize = int64_t{80} << 20;
  Scratch s;
  Conversion conversion(false, kSize);
  REQUIRE(conversion.run(s.at("whole"), INT64_MAX) == 0);
  const auto journal = s.at(".out.uckpt-journal");
  for (const int64_t keep : {-1, 0, 100, 511, 512, 530, 700, 2000}) {
    CAPTURE(keep);
    REQUIRE(conversion.run(s.at("out"), kSize / 2) == 3);
    if (keep < 0) {
      std::fstream file(journal, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(600);
      file.put('\x55');
    } else {
      fs::resize_file(journal, static_cast<uintmax_t>(keep));
    }
    REQUIRE(conversion.run(s.at("out"), INT64_MAX) == 0);
    CHECK(test::read_file(s.at("out")) == test::read_file(s.at("whole")));
    fs::remove(s.at("out"));
  }
}

TEST_CASE("an interrupted run whose files are gone or were cut begins anew") {
  constexpr int64_t kSize = int64_t{80} << 20;
  Scratch s;
  Conversion conversion(true, kSize);
  REQUIRE(conversion.run(s.at("whole"), INT64_MAX) == 0);
  for (const bool cut : {true, false}) {
    REQUIRE(conversion.run(s.at("out"), kSize / 2) == 3);
    const fs::path left = s.path / ".out.uckpt-tmp" / "sub" / "b";
    cut ? fs::resize_file(left, 5) : (void)fs::remove(left);
    REQUIRE(conversion.run(s.at("out"), INT64_MAX) == 0);
    CHECK(conversion.continued == 0);
    CHECK(test::read_file(s.at("out") + "/sub/b") == test::read_file(s.at("whole") + "/sub/b"));
    fs::remove_all(s.at("out"));
  }
}
