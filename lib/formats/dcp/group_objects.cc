#include "lib/formats/dcp/group_objects.h"

#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "lib/io/input.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"

namespace uckpt::dcp {

namespace {

// "optim.param_groups.0.lr"
struct OptionKey {
  std::string prefix;  // "optim."
  size_t group = 0;
  std::string option;
};

std::optional<OptionKey> parse(const std::string& key) {
  constexpr std::string_view kWord = "param_groups.";
  const size_t at = key.find(kWord);
  if (at == std::string::npos || (at > 0 && key[at - 1] != '.')) return std::nullopt;
  OptionKey out{key.substr(0, at), 0, {}};
  const char* const end = key.data() + key.size();
  const auto [dot, error] = std::from_chars(key.data() + at + kWord.size(), end, out.group);
  if (error != std::errc() || dot == end || *dot != '.') return std::nullopt;
  out.option.assign(dot + 1, end);
  return out;
}

}  // namespace

std::unique_ptr<pickle::Document> read_param_groups(const Catalog& catalog) {
  std::map<size_t, std::vector<std::pair<std::string, std::unique_ptr<pickle::Document>>>> groups;
  std::set<std::string> prefixes;
  for (const Object& object : catalog.objects) {
    const auto key = parse(object.origin);
    if (!key || object.size == 0) continue;
    prefixes.insert(key->prefix);
    try {
      Bytes bytes = catalog.files[object.file]->read_range(object.offset, object.size);
      groups[key->group].emplace_back(key->option, pickle::parse_whole(std::move(bytes), {}));
    } catch (Error& e) {
      throw e.in_member(object.origin).in_file(catalog.path);
    }
  }
  const bool is_whole = !groups.empty() && groups.rbegin()->first + 1 == groups.size();
  if (prefixes.size() != 1 || !is_whole) return nullptr;
  pickle::Pickler out;
  out.begin_list();
  for (const auto& [number, options] : groups) {
    out.begin_dict();
    for (const auto& [name, document] : options) {
      out.text(name);
      out.copy(document->root());
    }
    out.end_dict();
  }
  out.end_list();
  return pickle::parse_whole(out.finish(), {});
}

}  // namespace uckpt::dcp
