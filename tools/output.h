// stdout is the answer, stderr is everything else. Text from files is escaped here, once, on its way out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/formats/strict_json.h"

namespace uckpt::cli {

// The reader of our output went away (`uckpt ls … | head`): a normal end.
struct ClosedPipe {};

// Whether a path that the user typed stands for standard output.
inline bool is_stdout(std::string_view path) { return path == "-"; }

// Buffered stdout.
class Out {
 public:
  void print(std::string_view text);
  void line(std::string_view text);  // and a newline
  // Throws ClosedPipe, or trouble if stdout cannot be written.
  void flush();

 private:
  std::string buffer_;
};

// Columns as wide as they need to be, two spaces apart. Cells are escaped, and cut as long texts are, when
// they are added.
class Table {
 public:
  enum class Align : uint8_t { kLeft, kRight };
  explicit Table(std::vector<Align> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells);
  std::string text(std::string_view indent = "") const;
  void print(Out& out, std::string_view indent = "") const;

 private:
  std::vector<Align> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string json_strings(const std::vector<std::string>& items);  // a list of them
std::string json_number(double value);                            // null where it is not finite
std::string short_number(double value);                           // 6 digits, for people

// What the error says of the way out; of a limit that can be raised, how.
std::string hint_of(const Error& error);

void write_stderr(std::string_view text);  // one write; failures are ignored
void print_warning(std::string_view text);
// `uckpt: LINE` and a hint, or one JSON object on one line.
void print_error(const Error& error, bool json);

}  // namespace uckpt::cli
