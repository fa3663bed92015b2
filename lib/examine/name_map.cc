#include "lib/examine/name_map.h"

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/input.h"
#include "lib/ucl/parse.h"
#include "lib/ucl/walk.h"

namespace uckpt {

namespace {

Error bad_rule(std::string_view rule, std::string_view what) {
  return trouble("usage.map", cat("--map: `", escape(rule, 100), "`: ", what));
}

}  // namespace

void NameMap::add(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || text.find_first_of("\"\n\r") != std::string_view::npos)
    throw bad_rule(text, "expected A_PATTERN=B_PATTERN, such as model.{x:**}={x}, or a file of these");
  // The language's own map: it knows what `{x}` is on one side where the other says `{x:**}`.
  ucl::Diagnostics diagnostics;
  const ucl::Program program =
      ucl::parse(ucl::Source("--map", cat("map a <-> b { \"", text.substr(0, equals), "\" <-> \"",
                                          text.substr(equals + 1), "\" }")),
                 diagnostics);
  if (diagnostics.has_errors()) throw bad_rule(text, diagnostics.sorted().front().message);
  Rule rule{std::string(text), {}, {}};
  ucl::each<ucl::Map>(program.statements, [&](const ucl::Map& map) {
    ucl::each<ucl::MapRule>(map.items, [&](const ucl::MapRule& r) {
      rule.from = r.left.parts.front().name;
      rule.to = r.right.parts.front().name;
    });
  });
  if (rule.to.has_wildcard())
    throw bad_rule(text, "a name cannot be made of `*`: expected captures, such as {x:*} on both sides");
  for (const ucl::Capture* capture : rule.to.captures())
    if (rule.from.find(capture->name.text) == nullptr)
      throw bad_rule(text, cat("`", capture->name.text, "` stands on the right only"));
  rules_.push_back(std::move(rule));
}

void NameMap::add_file(const std::string& path) {
  constexpr int64_t kMaxBytes = int64_t{64} << 20;
  const auto file = InputFile::open(path);
  if (file->size() > kMaxBytes)
    throw trouble("usage.map",
                  cat("--map: expected a file of at most ", kMaxBytes, " bytes, found ", file->size()))
        .in_file(path);
  const Bytes bytes = file->read_range(0, file->size());
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t last = line.find_last_not_of(" \t\r");
    line = line.substr(0, last == std::string_view::npos ? 0 : last + 1);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    if (line.empty() || line.front() == '#') continue;
    try {
      add(line);
    } catch (Error& e) {
      throw e.in_file(path);
    }
  }
}

std::string NameMap::operator()(const std::string& name) {
  for (Rule& rule : rules_) {
    const auto captures = ucl::match(rule.from, name);
    if (!captures) continue;
    rule.used = true;
    const auto made = ucl::produce(rule.to, *captures);
    if (!made)
      throw bad_rule(rule.text, cat("it makes no name of `", escape(name, 100),
                                    "`: what is captured does not fit on the right"));
    return *made;
  }
  return name;
}

void NameMap::check_used() const {
  for (const Rule& rule : rules_)
    if (!rule.used) throw bad_rule(rule.text, "no tensor of A has a name that it is the first to match");
}

}  // namespace uckpt
