#include "tools/json_view.h"

#include <limits>
#include <string>

#include "lib/base/text.h"

namespace uckpt::cli {
namespace {

class Printer {
 public:
  Printer(Out& out, int64_t max_lines, bool whole_lines)
      : out_(out), max_lines_(max_lines), whole_lines_(whole_lines) {}

  int64_t print(std::string_view json) {
    for (size_t i = 0; i < json.size() && !stopped(); ++i) i = token(json, i);
    if (!line_.empty()) end_line();
    return lines_;
  }

 private:
  bool stopped() const { return lines_ > max_lines_; }

  // Handles what begins at `i`, returns the index of its last character.
  size_t token(std::string_view json, size_t i) {
    switch (const char c = json[i]) {
      case ' ':
      case '\t':
      case '\n':
      case '\r':
        return i;
      case '{':
      case '[':
        return open(json, i);
      case '}':
      case ']':
        --depth_;
        end_line();
        line_ += c;
        return i;
      case ',':
        line_ += c;
        end_line();
        return i;
      case ':':
        line_ += ": ";
        return i;
      case '"':
        return text(json, i);
      default:
        line_ += c;
        return i;
    }
  }
  size_t open(std::string_view json, size_t i) {
    line_ += json[i];
    const size_t next = json.find_first_not_of(" \t\r\n", i + 1);
    if (next != std::string_view::npos && (json[next] == '}' || json[next] == ']')) {
      line_ += json[next];
      return next;
    }
    ++depth_;
    end_line();
    return i;
  }
  size_t text(std::string_view json, size_t i) {
    size_t end = i + 1;
    while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
    line_ += json.substr(i, end - i + 1);
    return end;
  }
  void end_line() {
    constexpr size_t kCut = 200;
    if (++lines_ <= max_lines_) {
      out_.line(std::string(indent_, ' ') +
                escape(line_, whole_lines_ ? std::numeric_limits<size_t>::max() : kCut));
    }
    line_.clear();
    constexpr size_t kDeepest = 100;  // further in, lines are not moved to the right any more
    indent_ = 2 * std::min(depth_, kDeepest);
  }

  Out& out_;
  int64_t max_lines_;
  bool whole_lines_;
  int64_t lines_ = 0;
  size_t depth_ = 0, indent_ = 0;
  std::string line_;
};

}  // namespace

int64_t print_json(Out& out, std::string_view json, int64_t max_lines, bool whole_lines) {
  return Printer(out, max_lines, whole_lines).print(json);
}

}  // namespace uckpt::cli
