// The source line of a message, cut and measured in terminal columns.
#include <algorithm>
#include <iterator>

#include "lib/base/text.h"
#include "lib/ucl/source.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kMaxColumns = 100;  // of source text in an excerpt
constexpr uint32_t kMaxBytes = 600;  // of the line looked at, on each side of where the span begins
constexpr size_t kContext = 30;      // columns kept before the carets when a line is cut

struct Range {
  uint32_t first, last;
};
// Characters that take two columns (East Asian wide, emoji) or none (combining marks, joiners). Coarse on
// purpose: the carets of ordinary text are right, a rare script's may be off by some columns.
constexpr Range kWide[] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},  {0xac00, 0xd7a3},
                           {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6},
                           {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
constexpr Range kNarrow[] = {
    {0x0300, 0x036f}, {0x1ab0, 0x1aff}, {0x200b, 0x200d}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};

bool in(std::span<const Range> ranges, uint32_t c) {
  return std::any_of(ranges.begin(), ranges.end(), [c](Range r) { return c >= r.first && c <= r.last; });
}

size_t columns_of(uint32_t c) { return in(kWide, c) ? 2 : in(kNarrow, c) ? 0 : 1; }

// How one character of the source is shown.
struct Cell {
  std::string shown;
  size_t columns;
};

size_t character_size(std::string_view text, size_t i) {
  const auto lead = static_cast<unsigned char>(text[i]);
  const size_t size = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
  return valid_utf8(text.substr(i, size)) ? std::min(size, text.size() - i) : 1;
}

uint32_t code_point(std::string_view c) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(c[i])); };
  uint32_t value = c.size() == 1 ? byte(0) : byte(0) & (0xffu >> (c.size() + 1));
  for (size_t i = 1; i < c.size(); ++i) value = value << 6 | (byte(i) & 0x3f);
  return value;
}

Cell cell_of(std::string_view character) {
  if (character == "\t") return {" ", 1};
  std::string shown = escape(character);
  const bool as_is = shown == character;
  const size_t columns = as_is ? columns_of(code_point(character)) : shown.size();
  return {std::move(shown), columns};
}

// A line laid out in columns, and the columns [caret, caret_end) that the span takes.
struct ShownLine {
  std::vector<Cell> cells;
  size_t columns = 0, caret = 0, caret_end = 0;
};

ShownLine lay_out(std::string_view line, size_t begin, size_t end) {
  ShownLine row;
  for (size_t i = 0; i < line.size();) {
    if (i == begin) row.caret = row.columns;
    const size_t size = character_size(line, i);
    row.cells.push_back(cell_of(line.substr(i, size)));
    row.columns += row.cells.back().columns;
    i += size;
    if (i <= end) row.caret_end = row.columns;
  }
  if (begin >= line.size()) row.caret = row.columns;
  row.caret_end = std::max(row.caret_end, row.caret + 1);
  return row;
}

// The part of a line that is worth laying out: a line may be as long as its file.
Span neighbourhood(std::string_view text, Span line, uint32_t at) {
  Span near = line;
  if (at - line.begin > kMaxBytes) near.begin = at - kMaxBytes;
  if (line.end - at > kMaxBytes) near.end = at + kMaxBytes;
  const auto is_continuation = [&](uint32_t i) {
    return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80;
  };
  while (near.begin < at && is_continuation(near.begin)) ++near.begin;
  while (near.end < line.end && is_continuation(near.end)) ++near.end;
  return near;
}

}  // namespace

std::string excerpt(const Source& source, Span span) {
  const Span line = source.line_at(span.begin);
  const Span near = neighbourhood(source.text(), line, span.begin);
  const ShownLine row = lay_out(source.text(near), span.begin - near.begin,
                                std::min(std::max(span.end, near.begin), near.end) - near.begin);

  size_t from = 0, to = row.columns;  // the columns shown
  if (row.columns > kMaxColumns) {
    from = row.caret > kContext ? row.caret - kContext : 0;
    to = std::min(row.columns, from + kMaxColumns);
  }
  std::string text;
  size_t column = 0, shown_from = to;
  for (const Cell& cell : row.cells) {
    if (column >= from && column + cell.columns <= to) {
      shown_from = std::min(shown_from, column);
      text += cell.shown;
    }
    column += cell.columns;
  }
  const bool cut_before = shown_from > 0 || near.begin > line.begin;
  if (text.empty()) shown_from = 0;
  if (cut_before && !text.empty()) text.insert(0, "…");
  if (to < row.columns || near.end < line.end) text += "…";

  const std::string number = std::to_string(source.position(span.begin).line);
  const std::string gutter(std::max<size_t>(5, number.size() + 1), ' ');
  const size_t indent = row.caret - std::min(row.caret, shown_from) + (cut_before && !text.empty() ? 1 : 0);
  const size_t carets = std::max<size_t>(1, std::min(row.caret_end, to) - std::min(row.caret, to));
  return cat(gutter.substr(number.size()), number, text.empty() ? " |" : " | ", text, "\n", gutter, " | ",
             std::string(indent, ' '), std::string(carets, '^'), "\n");
}

}  // namespace uckpt::ucl
