#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <new>
#include <thread>
#include <vector>

#include "lib/base/sanitized.h"
#include "lib/formats/hdf5/sandbox.h"
#include "tests/unit/formats/hdf5_testing.h"

using namespace hdf5_testing;
using hdf5::Outbox;
using hdf5::Sandbox;
using hdf5::SandboxLimits;

namespace {

// The refusal's message when one number is asked of a child that does `work`.
std::string outcome(const std::function<void(Outbox&)>& work, SandboxLimits limits = {}) {
  try {
    Sandbox child(work, limits);
    child.get<uint32_t>();
    child.expect_end();
    return "";
  } catch (const Error& error) {
    CHECK(error.code() == "hdf5.damaged");
    return error.message();
  }
}

}  // namespace

TEST_CASE("hdf5 sandbox: numbers, texts and large blocks arrive") {
  const Bytes large = pattern(3 << 20, 1);
  Sandbox child(
      [&](Outbox& out) {
        out.put(uint32_t{42});
        out.put_text("hello");
        out.put(large);
        out.put_text("");
        out.put(int64_t{-1});
      },
      {});
  CHECK(child.get<uint32_t>() == 42);
  CHECK(child.get_text(5) == "hello");
  Bytes read(large.size());
  child.get(read);
  CHECK((read == large));
  CHECK(child.get_text(0) == "");
  CHECK(child.get<int64_t>() == -1);
  child.expect_end();
}

TEST_CASE("hdf5 sandbox: a child that dies, errs, lies or hangs is one refusal") {
  CHECK(outcome([](Outbox&) { std::abort(); }).find("failed on it (signal") != std::string::npos);
  CHECK(outcome([](Outbox&) { std::raise(SIGKILL); }) != "");
  CHECK(outcome([](Outbox&) { _exit(0); }).find("ended early") != std::string::npos);
  CHECK(outcome([](Outbox&) { throw refused("x", "its own words"); }) == "its own words");
  CHECK(outcome([](Outbox&) { throw std::bad_alloc(); }) ==
        "the HDF5 library ran out of memory: the file is damaged");
  CHECK(outcome([](Outbox&) {}).find("said too little") != std::string::npos);
  CHECK(outcome([](Outbox& out) { out.put(uint64_t{1}); }).find("said too much") != std::string::npos);
  SandboxLimits hasty;
  hasty.silence_seconds = 1;
  CHECK(outcome([](Outbox&) { std::this_thread::sleep_for(std::chrono::seconds(20)); }, hasty)
            .find("no answer within 1 seconds") != std::string::npos);
  SandboxLimits lazy;
  lazy.cpu_seconds = 1;
  CHECK(outcome(
            [](Outbox&) {
              while (std::clock() != -1) {
              }
            },
            lazy)
            .find("takes too long") != std::string::npos);
}

TEST_CASE("hdf5 sandbox: threads busy with the heap do not hang a child") {
  std::atomic<bool> stop = false;
  std::vector<std::jthread> busy;
  const auto allocate = [] {
    for (size_t bytes = 16; bytes <= 4096; bytes *= 2) ::operator delete(::operator new(bytes));
  };
  for (int i = 0; i < 3; ++i)
    busy.emplace_back([&] {
      while (!stop) allocate();
    });
  SandboxLimits brief;
  brief.silence_seconds = 10;
  std::string trouble;
  for (int i = 0; i < 60 && trouble.empty(); ++i) {
    trouble = outcome(
        [&](Outbox& out) {
          for (int k = 0; k < 50; ++k) allocate();
          out.put(uint32_t{0});
        },
        brief);
  }
  stop = true;
  CHECK(trouble == "");
}

TEST_CASE("hdf5 sandbox: an abandoned child does not stay") {
  pid_t child = 0;
  {
    Sandbox sandbox(
        [](Outbox& out) {
          out.put(getpid());
          out.put(Bytes(1 << 16));  // sends the number off
          for (;;) out.put(Bytes(1 << 16));
        },
        {});
    child = sandbox.get<pid_t>();
  }
  CHECK(kill(child, 0) == -1);
}

TEST_CASE("hdf5 sandbox: the child may read, and nothing else") {
  const TempFolder folder;
  const std::string there = folder.file("there"), created = folder.file("new");
  spill(there, "text");
  Sandbox child(
      [&](Outbox& out) {
        const auto say = [&](bool worked) { out.put(static_cast<uint8_t>(worked)); };
        say(open(there.c_str(), O_RDONLY) >= 0);
        say(open(there.c_str(), O_WRONLY) >= 0);
        say(open(created.c_str(), O_CREAT | O_WRONLY, 0600) >= 0);
        say(unlink(there.c_str()) == 0);
        say(mkdir(created.c_str(), 0700) == 0);
        say(rename(there.c_str(), created.c_str()) == 0);
        say(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
        say(fork() >= 0);
        say(kill(getppid(), 0) == 0);
        say(write(STDOUT_FILENO, "", 0) < 0);
        out.close_the_door();
        say(open(there.c_str(), O_RDONLY) >= 0);
      },
      {});
  std::string worked;
  for (int i = 0; i < 11; ++i) worked += child.get<uint8_t>() ? '+' : '-';
  child.expect_end();
  CHECK(worked == "+----------");
  CHECK(slurp(there) == "text");
  CHECK_FALSE(fs::exists(created));
}

TEST_CASE("hdf5 sandbox: memory has an end") {
  if (kSanitized) return;
  SandboxLimits small;
  small.memory_bytes = 64 << 20;
  CHECK(outcome([](Outbox& out) { out.put(Bytes(256 << 20)); }, small) ==
        "the HDF5 library ran out of memory: the file is damaged");
}
