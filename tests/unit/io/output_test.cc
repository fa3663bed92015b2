#include "lib/io/output.h"

#include <doctest/doctest.h>
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

TEST_CASE("two writers of one output: one proceeds") {
  Scratch s;
  OutputFile first(s.at("a"), false);
  CHECK(code_of(s.at("a"), false) == "output.locked");
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

TEST_CASE("a link in the temporary's place is not followed") {
  Scratch s;
  std::ofstream(s.at("victim")) << "precious";
  fs::create_symlink("victim", s.at(".a.uckpt-tmp"));
  CHECK(code_of(s.at("a"), false) == "io.system");
  CHECK(text_of(s.at("victim")) == "precious");
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
    const auto out = make_output(s.at("ckpt"), true, replace);
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
  const auto first = make_output(s.at("ckpt"), true, false);
  CHECK(fs::is_empty(s.at(".ckpt.uckpt-tmp")));
  std::string code;
  try {
    make_output(s.at("ckpt"), true, false);
  } catch (const Error& e) {
    code = e.code();
  }
  CHECK(code == "output.locked");
}
