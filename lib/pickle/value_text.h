// Values as text: numbers, dict keys.
#pragma once

#include <string>

#include "lib/pickle/value.h"

namespace uckpt::pickle {

// Shortest text that reads back as the same double, always with a point or an exponent: "0.0", "1e-08",
// "-0.0", "inf", "nan".
std::string real_text(double value);
// Exact decimal digits of a little-endian two's-complement integer.
std::string big_integer_text(ByteSpan bytes);
// A dict key as one word: text as it is, 0 as "0", a tuple as "(a, b)", a class by its name. Cut at 1,024
// bytes unless it is text.
std::string key_text(const Value& key);
// "deadbeef"
std::string hex_text(ByteSpan bytes);

}  // namespace uckpt::pickle
