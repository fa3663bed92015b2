#include "lib/ucl/source.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

// A character is a lead byte and its continuation bytes; in broken UTF-8 every byte is one.
bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

Source::Source(std::string name, std::string text) {
  auto content = std::make_shared<Content>();
  content->name = std::move(name);
  content->text = std::move(text);
  content->line_starts.push_back(0);
  const size_t looked_at = std::min(content->text.size(), kMaxSourceBytes);
  for (size_t i = 0; i < looked_at; ++i)
    if (content->text[i] == '\n') content->line_starts.push_back(static_cast<uint32_t>(i + 1));
  content_ = std::move(content);
}

Position Source::position(uint32_t offset) const {
  const auto& starts = content_->line_starts;
  const auto line = std::upper_bound(starts.begin(), starts.end(), offset) - 1;
  const std::string_view before = text().substr(*line, offset - *line);
  const auto continuations = std::count_if(before.begin(), before.end(), is_continuation);
  return {static_cast<uint32_t>(line - starts.begin()) + 1,
          static_cast<uint32_t>(before.size() - static_cast<size_t>(continuations)) + 1};
}

Span Source::line_at(uint32_t offset) const {
  const auto& starts = content_->line_starts;
  const auto next = std::upper_bound(starts.begin(), starts.end(), offset);
  uint32_t end = next == starts.end() ? static_cast<uint32_t>(text().size()) : *next - 1;
  const uint32_t begin = *(next - 1);
  if (end > begin && text()[end - 1] == '\r') --end;
  return {begin, end};
}

}  // namespace uckpt::ucl
