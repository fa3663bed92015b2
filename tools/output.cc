#include "tools/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <utility>

#include "lib/base/text.h"
#include "lib/pickle/value.h"

namespace uckpt::cli {
namespace {

constexpr size_t kBuffer = 1 << 16;

// Writes all of it; false with errno set if that fails.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// Code points, as a stand-in for columns.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

}  // namespace

void Out::print(std::string_view text) {
  buffer_ += text;
  if (buffer_.size() >= kBuffer) flush();
}

void Out::line(std::string_view text) {
  buffer_ += text;
  print("\n");
}

void Out::flush() {
  const std::string text = std::exchange(buffer_, {});
  if (write_all(STDOUT_FILENO, text)) return;
  if (errno == EPIPE) throw ClosedPipe{};
  throw system_trouble("cannot write to standard output", "");
}

void Table::row(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = escape(cell);
  rows_.push_back(std::move(cells));
}

void Table::print(Out& out, std::string_view indent) const { out.print(text(indent)); }

std::string Table::text(std::string_view indent) const {
  std::string all;
  std::vector<size_t> widths(columns_.size(), 0);
  for (const auto& cells : rows_) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], width_of(cells[i]));
  }
  for (const auto& cells : rows_) {
    std::string line(indent);
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string gap(widths[i] - width_of(cells[i]), ' ');
      line += columns_[i] == Align::kRight ? gap + cells[i] : cells[i] + gap;
      if (i + 1 < cells.size()) line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    all += line + "\n";
  }
  return all;
}

std::string json_number(double value) { return std::isfinite(value) ? cat(value) : "null"; }

std::string short_number(double value) {
  char text[48];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, 6).ptr};
}

std::string json_strings(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items) out += cat(out.size() > 1 ? ", " : "", json_string(item));
  return out + "]";
}

std::string hint_of(const Error& error) {
  constexpr std::string_view kLimit = "limit.";
  const std::string_view code = error.code();
  if (!error.hint_text().empty() || !code.starts_with(kLimit)) return error.hint_text();
  const std::string_view name = code.substr(kLimit.size());
  const auto most = pickle::Limits::most(name);
  return most ? cat("--limit ", name, "=N raises this limit, to ", *most, " at most") : std::string();
}

void write_stderr(std::string_view text) { write_all(STDERR_FILENO, text); }

void print_warning(std::string_view text) {
  constexpr size_t kMaxLine = 400;
  write_stderr(cat("uckpt: warning: ", escape(text, kMaxLine), "\n"));
}

void print_error(const Error& error, bool json) {
  if (!json) {
    std::string text = cat("uckpt: ", error.line(), "\n");
    if (const std::string hint = hint_of(error); !hint.empty())
      text += cat("hint: ", escape(hint, 400), "\n");
    return write_stderr(text);
  }
  std::string text = cat(R"({"uckpt": 1, "error": {"code": )", json_string(error.code()), R"(, "exit": )",
                         error.exit_code(), R"(, "message": )", json_string(error.message()));
  const auto field = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) text += cat(", \"", name, "\": ", json_string(value));
  };
  field("file", error.file());
  field("tensor", error.tensor());
  field("hint", hint_of(error));
  write_stderr(text + "}}\n");
}

}  // namespace uckpt::cli
