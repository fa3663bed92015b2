// Python regexes from a checkpoint, matched by RE2 in linear time as `re.match` would.
#include <re2/re2.h>

#include <algorithm>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/builder.h"

namespace uckpt::deepspeed {

struct Patterns::Pattern {
  std::string text;
  std::unique_ptr<RE2> regex;
  bool by_class;  // \w, \d, \s, \b mean Unicode in Python and ASCII in RE2
  mutable bool used = false;
};

namespace {

Error bad_pattern(const std::string& text, std::string_view why) {
  return refused("deepspeed.pattern", cat("the pattern \"", escape(text, 80), "\" of the checkpoint: ", why));
}

// Spellings that both accept and that mean different things.
std::optional<std::string> foreign_spelling(std::string_view text) {
  for (const std::string_view spelling : {"[[:", "{,", "\\Q", "\\C", "\\p", "\\P", "\\z", "(?P>", "(?<"}) {
    if (text.find(spelling) != text.npos) return cat("\"", spelling, "\" is not read");
  }
  return std::nullopt;
}

bool has_class(std::string_view text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '\\' && std::string_view("wWdDsSbB").find(text[++i]) != std::string_view::npos)
      return true;
  }
  return false;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

Patterns::Patterns() = default;
Patterns::~Patterns() = default;
Patterns::Patterns(Patterns&&) noexcept = default;
Patterns& Patterns::operator=(Patterns&&) noexcept = default;

void Patterns::add(const std::string& text) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  if (const auto spelling = foreign_spelling(text)) throw bad_pattern(text, *spelling);
  auto regex = std::make_unique<RE2>(text, options);
  if (!regex->ok()) throw bad_pattern(text, regex->error());
  patterns_.push_back({text, std::move(regex), has_class(text)});
}

std::optional<size_t> Patterns::match(const std::string& name) const {
  std::optional<size_t> matched;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    const Pattern& p = patterns_[i];
    if (p.by_class && !is_ascii(name))
      throw bad_pattern(p.text, "it cannot be tried on a name beyond ASCII").in_tensor(name);
    if (!p.regex->Match(name, 0, name.size(), RE2::ANCHOR_START, nullptr, 0)) continue;
    if (matched) throw bad_pattern(p.text, "another pattern of the same list matches too").in_tensor(name);
    matched = i;
    p.used = true;
  }
  return matched;
}

std::vector<std::string> Patterns::unused() const {
  std::vector<std::string> out;
  for (const Pattern& p : patterns_) {
    if (!p.used) out.push_back(p.text);
  }
  return out;
}

void Vocabulary::set(const std::vector<std::string>& patterns, std::optional<int64_t> original_size) {
  patterns_ = {};
  original_size_ = original_size;
  if (!patterns.empty() && (!original_size || *original_size < 0)) {
    throw refused("deepspeed.pattern", "there are vocabulary_parameter_patterns, but no original_vocab_size");
  }
  for (const std::string& text : patterns) patterns_.add(text);
}

Shape Vocabulary::logical(const std::string& name, const Shape& shape) const {
  if (!patterns_.match(name)) return shape;
  if (shape.empty() || shape[0] < *original_size_) {
    throw refused("deepspeed.sizes", cat("expected at least ", *original_size_,
                                         " rows (original_vocab_size), found shape ", shape_text(shape)))
        .in_tensor(name);
  }
  if (shape[0] > *original_size_) padded_.insert_or_assign(name, shape[0]);
  Shape cut = shape;
  cut[0] = *original_size_;
  return cut;
}

}  // namespace uckpt::deepspeed
