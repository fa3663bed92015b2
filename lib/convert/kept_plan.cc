#include "lib/convert/kept_plan.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/strict_json.h"
#include "lib/io/input.h"

namespace uckpt {

namespace {

constexpr int kMaxDepth = 8;
constexpr int64_t kMaxPlan = int64_t{4} << 30;
constexpr size_t kNone = std::string_view::npos;

// A document as tokens, each on a line: `{`, `[`, `}`, and behind a letter keys, texts and numbers.
class Tokens final : public JsonVisitor {
 public:
  void open_object() override { open('{'); }
  void open_array() override { open('['); }
  void close() override {
    --depth_;
    add('}', "");
  }
  void key(const std::string& name) override {
    if (depth_ == 1) top_ = name;
    key_ = name;
    add('k', name);
  }
  void text(const std::string& value) override {
    if (top_ == "request" && depth_ == 2) request_.push_back(value);
    if (top_ == "source" && depth_ == 3 && !source_.empty()) {
      if (key_ == "file") source_.back().name = value;
      if (key_ == "modified") source_.back().modified = value;
    }
    add('t', value);
  }
  void count(uint64_t value) override {
    if (depth_ == 1 && key_ == "uckpt") is_ours_ = value == 1;
    if (depth_ == 1 && key_ == "plan") check_version(value);
    if (top_ == "source" && depth_ == 3 && key_ == "bytes" && !source_.empty()) source_.back().bytes = value;
    add('n', cat(value));
  }
  void other(std::string_view what) override {
    throw refused("plan.kind", cat("a plan is made of texts and whole numbers, found ", what));
  }

  // Of a text that is whole.
  void check() const {
    if (!is_ours_ || !has_version_)
      throw refused("plan.kind", "expected a plan that `uckpt plan -o` kept, found other JSON");
  }
  std::string take_lines() { return std::move(lines_); }
  std::vector<std::string> take_request() { return std::move(request_); }
  std::vector<SourceFile> take_source() { return std::move(source_); }

 private:
  void check_version(uint64_t version) {
    has_version_ = true;
    if (version != kPlanVersion)
      throw refused("plan.version",
                    cat("expected a plan of version ", kPlanVersion, ", found version ", version))
          .hint("`uckpt plan -o` of this uckpt makes one that it reads");
  }
  void open(char bracket) {
    add(bracket, "");
    ++depth_;
    if (bracket == '{' && top_ == "source" && depth_ == 3) source_.emplace_back();
  }
  void add(char kind, std::string_view value) {
    if (is_about_the_request(top_)) return;
    lines_ += kind;
    for (const char c : value) {
      if (c == '\\' || c == '\n') lines_ += '\\';
      lines_ += c == '\n' ? 'n' : c;
    }
    lines_ += '\n';
  }

  std::string lines_, top_, key_;
  int depth_ = 0;
  bool is_ours_ = false, has_version_ = false;
  std::vector<std::string> request_;
  std::vector<SourceFile> source_;
};

std::string_view line_at(std::string_view lines, size_t at) {
  return at >= lines.size() ? std::string_view() : lines.substr(at, lines.find('\n', at) - at);
}

bool is_value(std::string_view line) {
  return !line.empty() && std::string_view("{[tn").find(line.front()) != kNone;
}

// Where what begins at `end` stands, be it a value or not: "files[3].holes[0].offset".
std::string place_of(std::string_view lines, size_t end, bool value) {
  struct Level {
    bool is_array;
    size_t items;
    std::string key;
  };
  std::vector<Level> levels;
  const auto begin_value = [&] {
    if (!levels.empty() && levels.back().is_array) ++levels.back().items;
  };
  for (size_t at = 0; at < end;) {
    const std::string_view line = line_at(lines, at);
    at += line.size() + 1;
    switch (line.front()) {
      case 'k':
        levels.back().key = line.substr(1);
        break;
      case '}':
        levels.pop_back();
        break;
      default:
        begin_value();
        if (line == "{" || line == "[") levels.push_back({line == "[", 0, ""});
    }
  }
  if (value) begin_value();
  std::string place;
  for (const Level& level : levels) {
    if (level.is_array && level.items > 0) place += cat("[", level.items - 1, "]");
    if (!level.is_array && !level.key.empty()) place += cat(place.empty() ? "" : ".", level.key);
  }
  return place;
}

std::string value_text(std::string_view line) {
  if (line.empty() || line == "}") return "nothing more";
  if (line == "{" || line == "[") return "a further item";
  if (line.front() == 'k') return cat("the key `", escape(line.substr(1), 60), "`");
  const std::string value = escape(line.substr(1), 80);
  return line.front() == 't' ? json_string(value) : value;
}

std::string file_text(const SourceFile& f) {
  return cat(f.bytes, " bytes, last modified ", f.modified.empty() ? "at no known time" : f.modified);
}

}  // namespace

std::shared_ptr<const KeptPlan> KeptPlan::parse(std::string path, std::string_view text) {
  auto plan = std::make_shared<KeptPlan>();
  Tokens tokens;
  try {
    parse_strict_json(text, kMaxDepth, tokens);
    tokens.check();
  } catch (Error& e) {
    throw e.in_file(path);
  }
  plan->path_ = std::move(path);
  plan->request_ = tokens.take_request();
  plan->source_ = tokens.take_source();
  plan->tokens_ = tokens.take_lines();
  return plan;
}

std::shared_ptr<const KeptPlan> KeptPlan::read(const std::string& path) {
  const auto file = InputFile::open(path);
  if (file->size() > kMaxPlan)
    throw refused("plan.size", cat("expected a plan of at most ", human_bytes(kMaxPlan), ", found ",
                                   human_bytes(static_cast<uint64_t>(file->size()))))
        .in_file(path);
  const Bytes bytes = file->read_range(0, file->size());
  return parse(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void KeptPlan::check_source(std::span<const SourceFile> now) const {
  const auto fail = [&](std::string what) {
    throw refused("plan.source", std::move(what))
        .in_file(path_)
        .hint("the input is not the one that was planned for: plan again");
  };
  for (size_t i = 0; i < std::max(now.size(), source_.size()); ++i) {
    if (i < now.size() && i < source_.size() && now[i] == source_[i]) continue;
    const bool is_renamed = i < now.size() && i < source_.size() && now[i].name != source_[i].name;
    if (i >= source_.size() || (is_renamed && source_.size() < now.size()))
      fail(cat("the input has the file ", escape(now[i].name), ", which the plan does not know"));
    if (i >= now.size() || is_renamed)
      fail(cat("the input has no file ", escape(source_[i].name), ", which the plan takes"));
    fail(cat("the input's file ", escape(now[i].name), " has changed: expected ", file_text(source_[i]),
             ", found ", file_text(now[i])));
  }
}

void KeptPlan::check_same(std::string_view document) const {
  Tokens tokens;
  parse_strict_json(document, kMaxDepth, tokens);
  const std::string now = tokens.take_lines();
  if (now == tokens_) return;
  const auto differing = std::ranges::mismatch(now, tokens_);
  const auto same = static_cast<size_t>(differing.in1 - now.begin());
  const size_t newline = std::string_view(now).substr(0, same).rfind('\n');
  const size_t at = newline == kNone ? 0 : newline + 1;
  const std::string_view kept = line_at(tokens_, at), made = line_at(now, at);
  throw refused("plan.differs", cat(place_of(now, at, is_value(kept) || is_value(made)), ": the plan says ",
                                    value_text(kept), ", now it is ", value_text(made)))
      .in_file(path_)
      .hint("a kept plan is done exactly or not at all: plan again");
}

}  // namespace uckpt
