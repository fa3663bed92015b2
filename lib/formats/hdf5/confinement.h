// What a sandboxed child may not do. Each function is called once, in the child, right after fork.
#pragma once

#include <cstdint>

namespace uckpt::hdf5 {

// Keeps `pipe_fd` only (returned under its new number); input, output and errors become /dev/null; signals
// have their default effect; the child dies with its parent.
int drop_inheritance(int pipe_fd);

// Processor time, memory, no core dump, no byte into any regular file.
void limit_resources(int cpu_seconds, int64_t memory_bytes);

// Only the system calls that reading needs: files are opened for reading only, nothing is made, removed, sent
// or run. Without effect where the kernel or the machine has no seccomp filters.
void limit_system_calls();

// No further file can be opened.
void forbid_opening();

}  // namespace uckpt::hdf5
