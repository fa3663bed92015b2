// Flags that verbs share. What the user typed stands in the *Flags structs; `checked` turns it into what the
// library takes, or throws trouble (`usage.…`) that names the flag and the way out.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/convert/options.h"
#include "lib/examine/opened.h"
#include "tools/progress.h"

namespace CLI {
class App;
}

namespace uckpt::cli {

// "16G", "512M", "4096": K, M, G, T are powers of 1024, an `iB` behind them changes nothing.
int64_t parse_size(std::string_view flag, std::string_view text);
// "auto", "cpu", "cuda:1", or "cuda" for the first one.
exec::DeviceChoice parse_device(std::string_view flag, std::string_view text);
// "90", "90s", "30m", "8h", "2d": seconds.
int64_t parse_duration(std::string_view flag, std::string_view text);
// A whole number >= `least`.
int64_t parse_count(std::string_view flag, std::string_view text, int64_t least);

// "tp=2,pp=4": sizes of a mesh, each axis once.
std::map<std::string, int64_t, std::less<>> parse_layout(std::string_view flag, std::string_view text);

struct OpenFlags {
  std::string from;
  std::vector<std::string> limits;  // NAME=N
  void add(CLI::App& app);
  OpenOptions checked() const;
};

// Rules for inputs that are cut, or that are wanted under other names.
struct RuleFlags {
  std::string spec, naming, as;
  std::vector<std::string> set;  // NAME=N
  void add(CLI::App& app);
  RuleOptions checked() const;
};

struct SelectFlags {
  Selection selection;
  void add(CLI::App& app);
};

struct ProgressFlags {
  std::string mode = "auto";
  bool quiet = false;
  void add(CLI::App& app);
  ProgressMode checked() const;
};

// What decides a plan: its input and output, and what is asked of them.
struct PlanFlags {
  OpenFlags open;
  RuleFlags rules;
  SelectFlags select;
  std::string in, out, to, layout, stages, shard_size, missing;
  std::vector<std::string> dtypes;  // TYPE or TYPE:PATTERN
  bool no_crc = false, trust_copies = false, allow_expand = false;
  void add(CLI::App& app);
  // The same as arguments, each flag with its value in one, IN and OUT behind `--`: what a plan that is kept
  // tells.
  std::vector<std::string> request() const;
  bool is_only_paths() const;
  // Throws refused `plan.request`: the arguments come from a file.
  static PlanFlags from_request(const std::vector<std::string>& request);
};

// What a run may have of the machine.
struct ResourceFlags {
  std::string threads, max_mem;
  void add(CLI::App& app);
  // 0: the flag is not given.
  int checked_threads() const;
  int64_t checked_max_mem() const;
  void hold_to() const;  // from now on the process keeps to --max-mem
};

// What `convert` and `plan` have in common: the plan, and how it is carried out.
struct ConvertFlags : PlanFlags {
  ResourceFlags resources;
  std::string manifest, device = "auto";
  bool no_sync = false, force = false, verify = false, no_verify = false, restart = false, direct = false;
  void add(CLI::App& app);
  ConvertOptions checked() const;
};

// What verbs that read a checkpoint whole have in common.
struct ReadFlags {
  OpenFlags open;
  RuleFlags rules;
  SelectFlags select;
  ProgressFlags progress;
  ResourceFlags resources;
  bool allow_expand = false;
  void add(CLI::App& app);
  ReadOptions checked() const;
  // Once all flags are checked: holds the process to --max-mem, and gives what tells the progress.
  std::unique_ptr<Progress> start() const;
};

// Positional arguments are optional to the parser, so that a misspelt flag is reported first.
void require(const std::string& argument, std::string_view name);

}  // namespace uckpt::cli
