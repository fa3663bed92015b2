#include "lib/ucl/page.h"

#include <algorithm>

namespace uckpt::ucl {

namespace {

constexpr size_t kWidestCell = 60;      // a wider one stands out of its column
constexpr size_t kLastCommentAt = 100;  // comments are lined up no further to the right

size_t gap_of(Columns columns) { return columns == Columns::kRules ? 2 : 1; }

bool ends_in_space(std::string_view text) { return text.empty() || text.back() == ' '; }

}  // namespace

size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string run_together(Columns columns, const std::vector<std::string>& cells) {
  std::string out;
  for (const std::string& cell : cells) {
    if (cell.empty()) continue;
    if (!ends_in_space(out)) out.append(gap_of(columns), ' ');
    out += cell;
  }
  return out;
}

void Page::line(size_t indent, Columns columns, std::vector<std::string> cells, std::string comment) {
  while (!cells.empty() && cells.back().empty()) cells.pop_back();
  lines_.push_back({indent, columns, std::move(cells), std::move(comment)});
  may_blank_ = true;
}

void Page::line(size_t indent, std::string text, std::string comment) {
  line(indent, Columns::kNone, {std::move(text)}, std::move(comment));
}

void Page::comments(size_t indent, const std::vector<std::string>& comments) {
  for (const std::string& c : comments) c.empty() ? blank() : line(indent, c);
}

void Page::blank() {
  if (may_blank_) lines_.emplace_back();
  may_blank_ = false;
}

void Page::begin_block(std::string head, std::string comment) {
  line(0, std::move(head), std::move(comment));
  may_blank_ = false;
}

// The lines [begin, end) as one group: the widths of their columns, which a cell at the end of its line does
// not widen.
std::vector<size_t> Page::widths_of(size_t begin, size_t end) const {
  std::vector<size_t> widths;
  for (size_t i = begin; i < end; ++i) {
    const auto& cells = lines_[i].cells;
    widths.resize(std::max(widths.size(), cells.size()), 0);
    for (size_t c = 0; c + 1 < cells.size(); ++c)
      if (const size_t w = width_of(cells[c]); w <= kWidestCell) widths[c] = std::max(widths[c], w);
  }
  return widths;
}

// The line with its first `lined_up` cells in their columns and the others behind them.
std::string Page::text_of(const Line& line, const std::vector<size_t>& widths, size_t lined_up) {
  std::string text(line.cells.empty() ? 0 : line.indent, ' ');
  for (size_t c = 0; c < line.cells.size(); ++c) {
    const size_t width = width_of(line.cells[c]);
    text += line.cells[c];
    if (c + 1 == line.cells.size()) break;
    if (c < lined_up && widths[c] > width) text.append(widths[c] - width, ' ');
    if (width > 0 || (c < lined_up && widths[c] > 0)) text.append(gap_of(line.columns), ' ');
  }
  return text;
}

// Each line's cells in their columns, without comments: as many columns as the page has room for.
std::vector<std::string> Page::lined_up() const {
  std::vector<std::string> out;
  for (size_t begin = 0, end; begin < lines_.size(); begin = end) {
    const Line& first = lines_[begin];
    end = begin + 1;
    if (first.columns != Columns::kNone)
      while (end < lines_.size() && lines_[end].columns == first.columns &&
             lines_[end].indent == first.indent)
        ++end;
    const std::vector<size_t> widths = widths_of(begin, end);
    for (size_t i = begin; i < end; ++i) {
      size_t columns = widths.size();
      std::string text = text_of(lines_[i], widths, columns);
      while (columns > 0 && width_of(text) > kPageWidth) text = text_of(lines_[i], widths, --columns);
      out.push_back(std::move(text));
    }
  }
  return out;
}

std::string Page::text() const {
  std::vector<std::string> rows = lined_up();
  for (size_t begin = 0, end; begin < rows.size(); begin = end) {
    end = begin + 1;
    if (lines_[begin].comment.empty()) continue;
    size_t column = width_of(rows[begin]);
    while (end < rows.size() && !lines_[end].comment.empty())
      column = std::max(column, width_of(rows[end++]));
    for (size_t i = begin; i < end; ++i) {
      const size_t width = width_of(rows[i]);
      rows[i].append((column + 2 <= kLastCommentAt ? column - width : 0) + 2, ' ');
      rows[i] += lines_[i].comment;
    }
  }
  std::string out;
  for (const std::string& row : rows) (out += row) += '\n';
  return out;
}

}  // namespace uckpt::ucl
