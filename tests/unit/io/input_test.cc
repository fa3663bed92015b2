#include "lib/io/input.h"

#include <doctest/doctest.h>
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
