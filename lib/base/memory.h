// How much memory of its own the process may have.
#pragma once

#include <cstdint>

namespace uckpt {

// A quarter of the machine's memory, or of what a control group leaves us of it.
int64_t default_max_mem();

// From now on our own (anonymous) memory does not grow beyond `bytes`: an allocation that would fails, as
// std::bad_alloc. The stacks of `threads` threads, and of one a core, do not count. Nothing is limited in
// builds whose sanitizers reserve memory of their own.
void limit_memory(int64_t bytes, int threads);
// The limit that was set; 0: none.
int64_t memory_limit();

// Gives back all memory of a container. `c = {}` does not: it assigns an empty list, and the memory stays.
template <class Container>
void release(Container& container) {
  Container().swap(container);
}
// Gives what was freed back to the system, as far as the allocator can.
void trim_memory();

}  // namespace uckpt
