#pragma once

#include <cstddef>
#include <string>

// The bytes of a literal, NULs among them.
template <size_t N>
std::string raw(const char (&text)[N]) {
  return {text, N - 1};
}
