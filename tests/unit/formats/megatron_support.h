// Folders of Megatron checkpoints to damage, and what reading them says.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "lib/formats/megatron/folder.h"
#include "lib/formats/megatron/legacy_format.h"
#include "torch_support.h"

namespace megatron_test {

using namespace uckpt;
namespace fs = std::filesystem;

inline std::string fixture(const std::string& name) { return torch_test::data("torch/" + name); }

// A folder that is removed at the end: empty, or a copy of a fixture's legacy checkpoint.
class Scratch {
 public:
  Scratch() : root_(fs::temp_directory_path() / cat("uckpt_megatron_", ::getpid(), "_", next())) {
    fs::create_directories(root_);
  }
  explicit Scratch(const std::string& name) : Scratch() {
    fs::copy(fixture(name) + "/legacy", root_, fs::copy_options::recursive);
  }
  ~Scratch() { fs::remove_all(root_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path() const { return root_.string(); }
  fs::path at(const std::string& name) const { return root_ / name; }
  void folder(const std::string& name) const { fs::create_directories(root_ / name); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  void remove(const std::string& name) const { REQUIRE(fs::remove_all(root_ / name) > 0); }
  void truncate(const std::string& name) const {
    fs::resize_file(root_ / name, fs::file_size(root_ / name) / 2);
  }

  // "code FILE: message" of an error, with names relative to this folder.
  std::string line_of(const Error& e) const {
    std::string line = e.code() + " " + e.line();
    for (size_t at; (at = line.find(path() + "/")) != line.npos;) line.erase(at, path().size() + 1);
    for (size_t at; (at = line.find(path())) != line.npos;) line.replace(at, path().size(), ".");
    return line;
  }

 private:
  static int next() {
    static int n = 0;
    return n++;
  }
  fs::path root_;
};

}  // namespace megatron_test
