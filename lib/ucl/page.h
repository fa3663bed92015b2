// Lines of canonical text whose columns are lined up with those of their neighbours.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace uckpt::ucl {

inline constexpr size_t kPageWidth = 120;

// Characters of a text, as the width of a column counts them.
size_t width_of(std::string_view text);

// What columns a line has; neighbours of one kind, without a blank or other line between, are lined up.
enum class Columns : uint8_t { kNone, kFacts, kRules, kMapRules, kEndpoints };

class Page {
 public:
  // A line of cells at an indentation, with a comment behind it (or an empty one).
  void line(size_t indent, Columns columns, std::vector<std::string> cells, std::string comment = {});
  void line(size_t indent, std::string text, std::string comment = {});
  // Comments on lines of their own; empty ones are blank lines.
  void comments(size_t indent, const std::vector<std::string>& comments);
  // One, however often it is called; none at the top or the start of a block.
  void blank();
  void begin_block(std::string head, std::string comment = {});

  std::string text() const;

 private:
  struct Line {
    size_t indent = 0;
    Columns columns = Columns::kNone;
    std::vector<std::string> cells;
    std::string comment;
  };
  std::vector<size_t> widths_of(size_t begin, size_t end) const;
  static std::string text_of(const Line& line, const std::vector<size_t>& widths, size_t lined_up);
  std::vector<std::string> lined_up() const;

  std::vector<Line> lines_;
  bool may_blank_ = false;
};

// The cells one behind another with the least space between them.
std::string run_together(Columns columns, const std::vector<std::string>& cells);

}  // namespace uckpt::ucl
