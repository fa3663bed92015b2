#include "lib/formats/strict_json.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {
namespace {

using Json = nlohmann::json;

// The keys of one object. Most have a handful, which are compared one by one.
class KeySet {
 public:
  bool insert(const std::string& key) {
    if (!many_.empty()) return many_.insert(key).second;
    if (std::ranges::find(few_, key) != few_.end()) return false;
    few_.push_back(key);
    if (few_.size() > kFew) many_.insert(few_.begin(), few_.end());
    return true;
  }
  void clear() {
    few_.clear();
    many_.clear();
  }

 private:
  static constexpr size_t kFew = 8;
  std::vector<std::string> few_;
  std::unordered_set<std::string> many_;
};

// The parser keeps its own stack of open brackets, so depth costs it nothing: the bound is ours to keep.
class Adapter final : public Json::json_sax_t {
 public:
  Adapter(JsonVisitor& visitor, int max_depth) : visitor_(visitor), max_depth_(max_depth) {}

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("true or false"); }
  bool number_integer(number_integer_t) override { return other("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override {
    return other(text.find_first_of(".eE") == string_t::npos ? "a number beyond 64 bits" : "a fraction");
  }
  bool number_unsigned(number_unsigned_t value) override {
    visitor_.count(value);
    return true;
  }
  bool string(string_t& value) override {
    visitor_.text(value);
    return true;
  }
  bool binary(binary_t&) override { return other("binary"); }

  bool start_object(std::size_t) override {
    enter();
    visitor_.open_object();
    return true;
  }
  bool start_array(std::size_t) override {
    enter();
    visitor_.open_array();
    return true;
  }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (!keys_[depth_ - 1].insert(name)) {
      throw refused("json.duplicate", cat("key `", escape(name), "` appears twice in one object"));
    }
    visitor_.key(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    throw refused("json.syntax", cat("invalid JSON at byte ", position, reason(e.what())));
  }

 private:
  bool other(std::string_view what) {
    visitor_.other(what);
    return true;
  }
  void enter() {
    if (static_cast<int>(depth_) == max_depth_) {
      throw refused("json.depth", cat("JSON is nested more than ", max_depth_, " deep"));
    }
    if (keys_.size() == depth_) keys_.emplace_back();
    keys_[depth_++].clear();
  }
  bool leave() {
    --depth_;
    visitor_.close();
    return true;
  }
  // "…parse error at line 1, column 2: syntax error while parsing value - invalid literal; last read: 'x'"
  static std::string reason(std::string_view what) {
    const size_t dash = what.find(" - ");
    if (dash == std::string_view::npos) return "";
    what.remove_prefix(dash + 3);
    return cat(": ", what.substr(0, what.find("; last read")));
  }

  JsonVisitor& visitor_;
  int max_depth_;
  std::vector<KeySet> keys_;  // of each open object; empty for arrays
  size_t depth_ = 0;          // how many of them are open: the others are kept for their memory
};

class AcceptAll final : public JsonVisitor {
 public:
  void open_object() override {}
  void open_array() override {}
  void close() override {}
  void key(const std::string&) override {}
  void text(const std::string&) override {}
  void count(uint64_t) override {}
  void other(std::string_view) override {}
};

}  // namespace

void check_strict_json(std::string_view text, int max_depth) {
  AcceptAll accept;
  parse_strict_json(text, max_depth, accept);
}

void parse_strict_json(std::string_view text, int max_depth, JsonVisitor& visitor) {
  if (!valid_utf8(text)) throw refused("json.utf8", "JSON text is not valid UTF-8");
  // Two things the parser lets pass: it takes a NUL byte for the end of the text, and skips a byte order
  // mark.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw refused("json.syntax", cat("invalid JSON at byte ", nul + 1, ": a NUL byte"));
  }
  if (text.starts_with("\xEF\xBB\xBF"))
    throw refused("json.syntax", "invalid JSON at byte 1: a byte order mark");
  Adapter adapter(visitor, max_depth);
  Json::sax_parse(text, &adapter);
}

std::string json_string(std::string_view text) {
  const std::string safe = escape(text, std::numeric_limits<size_t>::max());
  if (!valid_utf8(text)) return Json(safe).dump();
  // What a terminal could act on becomes \u escapes, the rest stays readable.
  return Json(text).dump(-1, ' ', safe != text);
}

}  // namespace uckpt
