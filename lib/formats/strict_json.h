// JSON from strangers, and text for our own. It is read event by event and never as a tree: nesting is
// bounded, a key set twice is an error, and an integer is never turned into a floating-point number.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace uckpt {

class JsonVisitor {
 public:
  virtual ~JsonVisitor() = default;
  virtual void open_object() = 0;
  virtual void open_array() = 0;
  virtual void close() = 0;  // of the innermost open object or array
  virtual void key(const std::string& name) = 0;
  virtual void text(const std::string& value) = 0;
  virtual void count(uint64_t value) = 0;         // a non-negative integer below 2^64
  virtual void other(std::string_view what) = 0;  // anything else, in words: "null", "a negative number"
};

// Reads one JSON value, with nothing but white space around it. Throws refused: `json.utf8`, `json.syntax`,
// `json.duplicate` (a key twice in one object, at any level), `limit.depth`, and what the visitor throws.
void parse_strict_json(std::string_view text, int max_depth, JsonVisitor& visitor);

// The same, of a value that is read some other way then.
void check_strict_json(std::string_view text, int max_depth);

// A JSON string literal. What is not UTF-8 is written escaped, as on a terminal.
std::string json_string(std::string_view text);

}  // namespace uckpt
