// Where the time of a command goes: its phases, one after another. For `--profile`; one command a process.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace uckpt {

struct Phase {
  std::string name;
  double seconds = 0;  // of all the times that it was entered
  int64_t bytes = 0;   // moved in it; 0: none
};

// The phase before ends; `bytes` are moved in this one. From the main thread only; costs a look at the clock.
void enter_phase(std::string_view name, int64_t bytes = 0);
// In the order in which they were first entered; the present one until now.
std::vector<Phase> phases();

}  // namespace uckpt
