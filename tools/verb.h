// A verb of the command line: its flags as typed, its help, and what it does. One file each; main.cc lists
// them.
#pragma once

#include <memory>
#include <string_view>

namespace CLI {
class App;
}

namespace uckpt::cli {

class Out;

class Verb {
 public:
  virtual ~Verb() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view summary() const = 0;   // one line
  virtual std::string_view usage() const = 0;     // "IN OUT"
  virtual std::string_view examples() const = 0;  // lines, the most common one first
  virtual void add_flags(CLI::App& app) = 0;
  // Prints the answer and returns the exit code; throws Error.
  virtual int run(Out& out) = 0;
};

std::unique_ptr<Verb> make_inspect();
std::unique_ptr<Verb> make_ls();
std::unique_ptr<Verb> make_convert();
std::unique_ptr<Verb> make_plan();
std::unique_ptr<Verb> make_extract();
std::unique_ptr<Verb> make_verify();
std::unique_ptr<Verb> make_sum();
std::unique_ptr<Verb> make_diff();
std::unique_ptr<Verb> make_stats();
std::unique_ptr<Verb> make_check();
std::unique_ptr<Verb> make_infer();
std::unique_ptr<Verb> make_fmt();
std::unique_ptr<Verb> make_devices();

}  // namespace uckpt::cli
