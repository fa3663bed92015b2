#include "lib/io/input.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {
struct Scratch {
  fs::path path = fs::temp_directory_path() / ("uckpt_io_" + std::to_string(::getpid()));
  Scratch() { fs::create_directories(path / "in"); }
  ~Scratch() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& text) { std::ofstream(path / name) << text; }
};

template <class F>
std::string code_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}
}  // namespace

TEST_CASE("files are read by range and never past their end") {
  Scratch s;
  s.write("in/a", "0123456789");
  const auto file = InputFile::open((s.path / "in/a").string());
  CHECK(file->size() == 10);
  CHECK(file->read_range(3, 4) == Bytes{'3', '4', '5', '6'});
  CHECK(code_of([&] { file->read_range(8, 3); }) == "io.short_read");
  CHECK(code_of([&] { file->read_range(-1, 1); }) == "io.short_read");
  CHECK(code_of([&] { file->read_range(0, INT64_MAX); }) == "io.short_read");
}

TEST_CASE("a folder does not let names out") {
  Scratch s;
  s.write("in/a2", "x");
  s.write("in/a10", "x");
  s.write("secret", "x");
  fs::create_symlink(s.path / "secret", s.path / "in/out_link");
  fs::create_symlink("a2", s.path / "in/in_link");
  const InputFolder folder((s.path / "in").string());
  CHECK(folder.list() == std::vector<std::string>{"a2", "a10", "in_link", "out_link"});
  CHECK(folder.open("in_link")->size() == 1);
  CHECK(code_of([&] { folder.open("out_link"); }) == "name.escapes");
  CHECK(code_of([&] { folder.open("../secret"); }) == "name.escapes");
  CHECK(code_of([&] { folder.open("/etc/passwd"); }) == "name.escapes");
  CHECK(code_of([&] { folder.open(std::string_view("a2\0b", 4)); }) == "name.escapes");
  CHECK(code_of([&] { folder.open("absent"); }) == "io.system");
}

TEST_CASE("runs are read alike from a mapping and by calls") {
  Scratch s;
  std::string text;
  for (int i = 0; i < 40000; ++i) text += static_cast<char>('a' + i * 7 % 26);
  s.write("in/a", text);
  const auto file = InputFile::open((s.path / "in/a").string());
  for (const int64_t length : {1, 7, 256, 4095, 4096, 5000}) {
    for (const int64_t stride : {length, length + 3, int64_t{6000}}) {
      const int64_t count = (static_cast<int64_t>(text.size()) - 11 - length) / stride + 1;
      Bytes runs(static_cast<size_t>(count * length));
      file->read_runs(11, stride, length, runs);
      std::string expected;
      for (int64_t i = 0; i < count; ++i)
        expected += text.substr(static_cast<size_t>(11 + i * stride), static_cast<size_t>(length));
      CHECK(std::string(runs.begin(), runs.end()) == expected);
    }
  }
  Bytes out(300);
  CHECK(code_of([&] { file->read_runs(39000, 1000, 100, out); }) == "io.short_read");
}

TEST_CASE("a mapped file that shrinks is an error, not a signal") {
  Scratch s;
  s.write("in/a", std::string(100000, 'x'));
  const auto file = InputFile::open((s.path / "in/a").string());
  Bytes out(200);
  file->read_runs(0, 90000, 100, out);
  fs::resize_file(s.path / "in/a", 4096);
  CHECK(code_of([&] { file->read_runs(0, 90000, 100, out); }) == "io.short_read");
  file->read_runs(0, 2000, 100, out);
  CHECK(out == Bytes(200, 'x'));
}

TEST_CASE("a descriptor past the page cache is of the same file, or there is none") {
  Scratch s;
  s.write("in/a", "as it was");
  const auto file = InputFile::open((s.path / "in/a").string());
  const int fd = file->open_direct();
  if (fd < 0) {
    MESSAGE("SKIPPED: the file system of temporary files knows no O_DIRECT");
    return;
  }
  CHECK((::fcntl(fd, F_GETFL) & O_DIRECT) != 0);
  CHECK(fs::read_symlink("/proc/self/fd/" + std::to_string(fd)).filename() == "a");
  ::close(fd);
  s.write("in/b", "as it was");
  fs::rename(s.path / "in/b", s.path / "in/a");
  CHECK(file->open_direct() == -1);
  CHECK(MemorySource("m", {}).open_direct() == -1);
}
