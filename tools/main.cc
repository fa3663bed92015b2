// The command line: one list of verbs, and the one place where errors are caught, printed and given an exit
// code.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/io/input.h"
#include "tools/output.h"
#include "tools/parser.h"
#include "tools/profile.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

int dispatch(int argc, const char* const* argv) {
  std::vector<std::unique_ptr<Verb>> verbs;
  verbs.push_back(make_inspect());
  verbs.push_back(make_ls());
  verbs.push_back(make_convert());
  verbs.push_back(make_plan());
  verbs.push_back(make_extract());
  verbs.push_back(make_verify());
  verbs.push_back(make_sum());
  verbs.push_back(make_diff());
  verbs.push_back(make_stats());
  verbs.push_back(make_check());
  verbs.push_back(make_infer());
  verbs.push_back(make_fmt());
  verbs.push_back(make_devices());

  Out out;
  std::string answer;
  bool profile = false;
  Verb* verb = parse(argc, argv, verbs, answer, profile);
  out.print(answer);
  const int code = verb == nullptr ? 0 : verb->run(out);
  enter_phase("answer");
  out.flush();
  if (profile) write_stderr(profile_page());
  return code;
}

// Also where parsing itself failed.
bool wants_json(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json") return true;
  }
  return false;
}

Error out_of_memory() {
  const int64_t limit = memory_limit();
  if (limit == 0) return trouble("memory", "out of memory");
  return trouble("memory", cat("out of memory: more is needed than the ",
                               human_bytes(static_cast<uint64_t>(limit)), " that this run may have"))
      .hint("--max-mem allows more; without it a run has a quarter of the machine's");
}

// A thread whose stack finds no room; oneTBB tells it as text alone.
Error internal(const std::exception& e) {
  if (std::string_view(e.what()).find(std::strerror(EAGAIN)) != std::string_view::npos)
    return out_of_memory();
  return trouble("internal", cat("internal error, please report it: ", e.what()));
}

int run(int argc, const char* const* argv) {
  const bool json = wants_json(argc, argv);
  const auto failed = [&](const Error& error) {
    print_error(error, json);
    return error.exit_code();
  };
  try {
    return dispatch(argc, argv);
  } catch (const ClosedPipe&) {
    return 0;
  } catch (const Error& e) {
    return failed(e);
  } catch (const std::bad_alloc&) {
    return failed(out_of_memory());
  } catch (const std::exception& e) {
    return failed(internal(e));
  }
}

}  // namespace
}  // namespace uckpt::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(), and a normal end
  std::signal(SIGXFSZ, SIG_IGN);  // so is a file that may not grow
  uckpt::raise_file_limit();
  uckpt::enter_phase("start");
  return uckpt::cli::run(argc, argv);
}
