#include "lib/ucl/draft.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

struct Template {
  std::vector<std::string> between;
  std::vector<int64_t> numbers;
};

bool is_number(std::string_view part) {
  return !part.empty() && part.size() < 10 && (part == "0" || part[0] != '0') &&
         std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Template template_of(std::string_view name) {
  Template out;
  std::string text;
  for (size_t at = 0; at <= name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, dot - at);
    if (is_number(part)) {
      out.between.push_back(std::move(text));
      text.clear();
      out.numbers.push_back(std::stoll(std::string(part)));
    } else {
      text += part;
    }
    if (dot < name.size()) text += '.';
    at = dot + 1;
  }
  out.between.push_back(std::move(text));
  return out;
}

}  // namespace

std::string escaped_pattern(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (std::string_view("\\*{}\"").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

bool Draft::Family::is_full() const {
  size_t product = 1;
  for (const auto& n : numbers) {
    product *= n.size();
    if (product > seen.size()) return false;
  }
  return product == seen.size();
}

void Draft::add(std::string_view name, std::string body, std::string reason) {
  const Rule rule{std::move(body), std::move(reason)};
  Template shape = template_of(name);
  std::string key;
  for (const std::string& b : shape.between) key += cat(b, "\n");
  const auto [entry, fresh] = known_.emplace(std::move(key), families_.size());
  if (fresh)
    families_.push_back(
        {std::move(shape.between), std::vector<std::set<int64_t>>(shape.numbers.size()), {}, {}, rule, true});
  Family& f = families_[entry->second];
  f.alike &= f.rule == rule;
  for (size_t i = 0; i < shape.numbers.size(); ++i) f.numbers[i].insert(shape.numbers[i]);
  f.seen.insert(std::move(shape.numbers));
  f.names.emplace_back(name);
  rules_.emplace(name, rule);
}

std::string Draft::pattern_of(const Family& f, Captures& captures) {
  std::string out = escaped_pattern(f.between[0]);
  for (size_t i = 0; i < f.numbers.size(); ++i) {
    if (f.numbers[i].size() == 1) {
      out += cat(*f.numbers[i].begin());
    } else {
      const size_t n = captures.size();  // i, j, k, i3, i4, …
      const std::string next = n < 3 ? std::string(1, static_cast<char>('i' + n)) : cat("i", n);
      out += cat("{", captures.emplace(std::pair(i, f.numbers[i]), next).first->second, "}");
    }
    out += escaped_pattern(f.between[i + 1]);
  }
  return out;
}

std::string Draft::text(std::string_view layout, std::string_view mesh, std::string_view heading) const {
  std::string out =
      cat("ucl 1\n# ", heading, "\nlayout ", layout, mesh.empty() ? "" : " over ", mesh, " {\n");
  Captures captures;
  const auto line = [&](const std::string& pattern, const Rule& rule) {
    out += cat("    \"", pattern, "\" ", rule.body, "  # ", rule.reason, "\n");
  };
  for (const Family& f : families_) {
    if (f.alike && f.names.size() > 1 && f.is_full()) {
      line(pattern_of(f, captures), f.rule);
    } else {
      for (const std::string& n : f.names) line(escaped_pattern(n), rules_.find(n)->second);
    }
  }
  return out + "}\n";
}

}  // namespace uckpt::ucl
