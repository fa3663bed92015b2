#include "lib/io/output.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "lib/base/bytes.h"
#include "lib/base/error.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {
struct Scratch {
  fs::path path = fs::temp_directory_path() / ("uckpt_output_" + std::to_string(::getpid()));
  Scratch() { fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
  std::string at(const char* name) const { return (path / name).string(); }
};

std::string text_of(const std::string& path) {
  std::stringstream s;
  s << std::ifstream(path).rdbuf();
  return s.str();
}

std::string code_of(const std::string& path, bool replace) {
  try {
    OutputFile out(path, replace);
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

const Bytes kHello = {'h', 'e', 'l', 'l', 'o'};
}  // namespace

TEST_CASE("an output appears whole or not at all") {
  Scratch s;
  {
    OutputFile out(s.at("a"), false);
    out.preallocate(5);
    out.write_at(0, kHello);
    CHECK(!fs::exists(s.at("a")));
    out.commit(true);
  }
  CHECK(text_of(s.at("a")) == "hello");
  { OutputFile abandoned(s.at("b"), false); }
  CHECK(std::distance(fs::directory_iterator(s.path), {}) == 1);
}

TEST_CASE("an existing output is replaced only on request, and only at the end") {
  Scratch s;
  std::ofstream(s.at("a")) << "old";
  CHECK(code_of(s.at("a"), false) == "output.exists");
  {
    OutputFile out(s.at("a"), true);
    out.write_at(0, kHello);
    CHECK(text_of(s.at("a")) == "old");
    out.commit(false);
  }
  CHECK(text_of(s.at("a")) == "hello");
}

TEST_CASE("an output that appears meanwhile is not overwritten") {
  Scratch s;
  OutputFile out(s.at("a"), false);
  std::ofstream(s.at("a")) << "other";
  std::string code;
  try {
    out.commit(false);
  } catch (const Error& e) {
    code = e.code();
  }
  CHECK(code == "output.exists");
  CHECK(text_of(s.at("a")) == "other");
}

TEST_CASE("two writers of one output: one proceeds, the other says who holds it") {
  Scratch s;
  OutputFile first(s.at("a"), false);
  std::string line;
  try {
    OutputFile second(s.at("a"), false);
  } catch (const Error& e) {
    CHECK(e.code() == "output.locked");
    line = e.line();
  }
  CHECK(line.find("process " + std::to_string(::getpid())) != std::string::npos);
}

TEST_CASE("what is kept of an output is opened as it is, by whoever claims it next") {
  Scratch s;
  for (const bool is_folder : {false, true}) {
    const std::string path = s.at(is_folder ? "folder" : "file"), name = is_folder ? "sub/part" : "";
    {
      Claim claim(path);
      claim.keep(true);
      const auto out = make_output(claim, is_folder, false, LeftOver::kDiscarded);
      out->add(name);
      out->preallocate(0, 10);
      out->write_at(0, 0, kHello);
      out->keep(true);
    }
    CHECK(!fs::exists(path));
    Claim claim(path);
    CHECK(claim.last_owner().pid == ::getpid());
    CHECK(!claim.is_after_restart());
    const auto out = make_output(claim, is_folder, false, LeftOver::kContinued);
    out->add(name);
    out->write_at(0, 5, kHello);
    out->commit(true);
    CHECK(text_of(is_folder ? path + "/sub/part" : path) == "hellohello");
  }
  CHECK(std::distance(fs::directory_iterator(s.path), {}) == 2);
}

TEST_CASE("the temporary of a dead process is taken over") {
  Scratch s;
  std::ofstream(s.at(".a.uckpt-tmp")) << "left behind, and longer than the new content";
  {
    OutputFile out(s.at("a"), false);
    out.write_at(0, kHello);
    out.commit(false);
  }
  CHECK(text_of(s.at("a")) == "hello");
}

TEST_CASE("a link in the temporary's or the claim's place is not followed") {
  Scratch s;
  std::ofstream(s.at("victim")) << "precious";
  fs::create_symlink("victim", s.at(".a.uckpt-tmp"));
  CHECK(code_of(s.at("a"), false) == "");
  CHECK(text_of(s.at("victim")) == "precious");
  fs::create_symlink("victim", s.at(".a.uckpt-journal"));
  CHECK(code_of(s.at("a"), false) == "io.system");
  CHECK(text_of(s.at("victim")) == "precious");
}

TEST_CASE("what is no file is not replaced") {
  Scratch s;
  REQUIRE(::mkfifo(s.at("pipe").c_str(), 0600) == 0);
  CHECK(code_of(s.at("pipe"), true) == "output.kind_of_file");
  const Claim claim(s.at("pipe"));
  CHECK_THROWS_AS(make_output(claim, true, true, LeftOver::kDiscarded), Error);
  CHECK(fs::is_fifo(s.at("pipe")));
}

TEST_CASE("names that are no file names are refused") {
  Scratch s;
  CHECK(code_of(s.path.string(), true) == "output.folder");
  CHECK(code_of(s.path.string() + "/", true) != "");
  CHECK(code_of(s.at("absent/a"), false) == "io.system");
}

TEST_CASE("an output folder appears whole or not at all, and replaces another one in one step") {
  Scratch s;
  const auto fill = [&](bool replace, bool commit) {
    const Claim claim(s.at("ckpt"));
    const auto out = make_output(claim, true, replace, LeftOver::kDiscarded);
    out->add("latest");
    out->add("step/a.bin");
    out->preallocate(1, 5);
    out->write_at(0, 0, kHello);
    out->write_at(1, 0, kHello);
    if (commit) out->commit(true);
  };
  fill(false, false);
  CHECK(fs::is_empty(s.path));
  fill(false, true);
  CHECK(text_of(s.at("ckpt/step/a.bin")) == "hello");
  std::ofstream(s.at("ckpt/old")) << "old";
  std::string code;
  try {
    fill(false, true);
  } catch (const Error& e) {
    code = e.code();
  }
  CHECK(code == "output.exists");
  CHECK(fs::exists(s.at("ckpt/old")));
  fill(true, true);
  CHECK(!fs::exists(s.at("ckpt/old")));
  CHECK(text_of(s.at("ckpt/latest")) == "hello");
  CHECK(std::distance(fs::directory_iterator(s.path), {}) == 1);
}

TEST_CASE("two writers of one output folder: one proceeds; what a dead one left is cleared away") {
  Scratch s;
  fs::create_directories(s.at(".ckpt.uckpt-tmp/left"));
  const Claim claim(s.at("ckpt"));
  const auto first = make_output(claim, true, false, LeftOver::kDiscarded);
  CHECK(fs::is_empty(s.at(".ckpt.uckpt-tmp")));
  std::string code;
  try {
    const Claim second(s.at("ckpt"));
  } catch (const Error& e) {
    code = e.code();
  }
  CHECK(code == "output.locked");
}

TEST_CASE("descriptors past the page cache are of the files of an output") {
  for (const bool is_folder : {false, true}) {
    const Scratch s;
    const Claim claim(s.at("out"));
    const auto out = make_output(claim, is_folder, false, LeftOver::kDiscarded, true);
    const std::string first = out->add(is_folder ? "a" : ""), last = is_folder ? out->add("b") : first;
    if (!out->is_direct()) {
      MESSAGE("SKIPPED: the file system of temporary files knows no O_DIRECT");
      return;
    }
    const int fd = out->open_direct(is_folder ? 1 : 0);
    REQUIRE(fd >= 0);
    CHECK(fs::read_symlink("/proc/self/fd/" + std::to_string(fd)) == fs::canonical(last));
    ::close(fd);
  }
}
