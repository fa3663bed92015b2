#include "lib/tensor/collapse.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <unordered_map>

#include "lib/base/text.h"

namespace uckpt {
namespace {

// A name cut at its numbers: texts[0] numbers[0] texts[1] … Each number is the set of those put together so
// far.
struct Pattern {
  std::vector<std::string> texts;
  std::vector<std::vector<int64_t>> numbers;
  std::vector<size_t> members;
};

bool is_number(std::string_view part) {
  constexpr size_t kMostDigits = 9;
  if (part.empty() || part.size() > kMostDigits || (part.size() > 1 && part.front() == '0')) return false;
  return std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
}

Pattern pattern_of(std::string_view name, size_t index) {
  Pattern p;
  p.texts.emplace_back();
  p.members.push_back(index);
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('.', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (start > 0) p.texts.back() += '.';
    if (is_number(part)) {
      int64_t value = 0;
      std::from_chars(part.data(), part.data() + part.size(), value);
      p.numbers.push_back({value});
      p.texts.emplace_back();
    } else {
      p.texts.back() += part;
    }
    start = end + 1;
  }
  return p;
}

std::string number_text(const std::vector<int64_t>& numbers) {
  if (numbers.size() == 1) return cat(numbers.front());
  std::string text = ranges_text(numbers);
  std::erase(text, ' ');
  return cat("{", text, "}");
}

// Equal for patterns that may differ in number `open` only.
std::string key_of(const Pattern& p, size_t open, const std::string& facts) {
  std::string key = cat(facts.size(), ':', facts);
  for (size_t i = 0; i < p.texts.size(); ++i) {
    key += cat(p.texts[i].size(), ':', p.texts[i]);
    if (i < p.numbers.size() && i != open) key += number_text(p.numbers[i]);
  }
  return key;
}

// One pass puts together the patterns that differ in number `open` only.
std::vector<Pattern> merge(std::vector<Pattern> patterns, size_t open, std::span<const NamedItem> items) {
  std::vector<Pattern> merged;
  std::unordered_map<std::string, size_t> seen;
  for (Pattern& p : patterns) {
    if (open >= p.numbers.size()) {
      merged.push_back(std::move(p));
      continue;
    }
    const auto [at, fresh] = seen.emplace(key_of(p, open, items[p.members.front()].facts), merged.size());
    if (fresh) {
      merged.push_back(std::move(p));
      continue;
    }
    Pattern& into = merged[at->second];
    into.numbers[open].insert(into.numbers[open].end(), p.numbers[open].begin(), p.numbers[open].end());
    into.members.insert(into.members.end(), p.members.begin(), p.members.end());
  }
  for (Pattern& p : merged) {
    if (open < p.numbers.size()) std::ranges::sort(p.numbers[open]);
  }
  return merged;
}

std::string text_of(const Pattern& p) {
  std::string text;
  for (size_t i = 0; i < p.texts.size(); ++i) {
    text += p.texts[i];
    if (i < p.numbers.size()) text += number_text(p.numbers[i]);
  }
  return text;
}

}  // namespace

std::vector<NameGroup> collapse_names(std::span<const NamedItem> items) {
  constexpr size_t kMostNumbers = 4;  // numbers further on in a name are left as they are
  std::vector<Pattern> patterns;
  for (size_t i = 0; i < items.size(); ++i) patterns.push_back(pattern_of(items[i].name, i));
  // The innermost number first: whole blocks of experts are then equal but for their layer.
  for (size_t open = kMostNumbers; open-- > 0;) patterns = merge(std::move(patterns), open, items);
  std::vector<NameGroup> groups;
  for (Pattern& p : patterns) {
    std::ranges::sort(p.members);
    groups.push_back({text_of(p), std::move(p.members)});
  }
  return groups;
}

}  // namespace uckpt
