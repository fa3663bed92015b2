// Cuts one file of a checkpoint to length after length, and converts after each cut, all in one process: a
// thousand cuts a second, where a process each makes a hundred.
//
//   cut_driver SOURCE VICTIM OUT AT < lengths
//
// The lengths fall. Each conversion must be refused in one line and leave nothing beside OUT. Prints
// `LENGTH whole` for one that succeeded (cut.py says whether it may), `LENGTH PROBLEM` for what is wrong, and
// `N refused` at the end. AT is a file that holds the length being tried, for whoever finds this process
// dead.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/convert/convert.h"
#include "lib/io/input.h"
#include "tests/unit/exec/quiet_progress.h"

using namespace uckpt;

namespace {

constexpr unsigned kMostSeconds = 30;  // for one conversion: then the alarm's signal is the finding

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

std::string problem_of(const Error& e) {
  const std::string line = e.line();
  if (e.exit_code() != 1) return cat("exit ", e.exit_code(), ": ", line);
  if (line.size() > 400 || line.find('\n') != std::string::npos) return cat("no short line: ", line);
  if (e.file().empty()) return cat("names no file: ", line);
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return std::fputs("usage: cut_driver SOURCE VICTIM OUT AT < lengths\n", stderr), 2;
  const std::string source = argv[1], victim = argv[2], out = argv[3];
  const std::string folder = std::filesystem::path(out).parent_path();
  const int at = ::open(argv[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (at < 0) return std::perror(argv[4]), 2;
  raise_file_limit();
  ConvertOptions options;
  options.threads = 1;
  options.sync = false;
  test::Quiet quiet;
  const StopFlag stop{false};
  const auto before = names_in(folder);

  long long length = 0, refused_ones = 0;
  while (std::scanf("%lld", &length) == 1) {
    const std::string text = cat(length, "\n");
    if (::truncate(victim.c_str(), length) != 0) return std::perror(victim.c_str()), 2;
    if (::pwrite(at, text.data(), text.size(), 0) < 0 ||
        ::ftruncate(at, static_cast<off_t>(text.size())) != 0)
      return std::perror(argv[4]), 2;
    ::alarm(kMostSeconds);
    std::string problem;
    try {
      convert(source, out, options, quiet, stop);
      problem = "whole";
      std::filesystem::remove_all(out);
    } catch (const Error& e) {
      problem = problem_of(e);
    } catch (const std::exception& e) {
      problem = cat("internal error: ", e.what());
    }
    if (problem.empty() && names_in(folder) != before) problem = "left something beside the output";
    if (problem.empty()) {
      ++refused_ones;
    } else {
      std::printf("%lld %s\n", length, problem.c_str());
    }
  }
  std::printf("%lld refused\n", refused_ones);
  return 0;
}
