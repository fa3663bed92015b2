#include "lib/formats/deepspeed/views.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/pickle/value_text.h"

namespace uckpt::deepspeed {

namespace {

std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Small values are printed here: asking the file costs a pass over its whole tree.
std::string value_json(const torch::TorchFile& file, const pickle::Value& value) {
  if (value.is_none()) return "null";
  if (const auto b = value.boolean()) return *b ? "true" : "false";
  if (const auto i = value.integer()) return cat(*i);
  if (value.size() == 0 && value.is_dict() && !value.state()) return "{}";
  if (value.size() == 0 && value.is_sequence()) return "[]";
  return file.json(value);
}

bool may_hold_more(const pickle::Value& value) {
  switch (value.kind()) {
    case pickle::Kind::kList:
    case pickle::Kind::kTuple:
    case pickle::Kind::kDict:
    case pickle::Kind::kCall:
    case pickle::Kind::kObject:
      return true;
    default:
      return false;
  }
}

struct Visit {
  pickle::Value value;
  std::string path;
};

std::string below(const std::string& path, const pickle::Value& key) {
  const std::string text = pickle::key_text(key);
  return path.empty() ? text : cat(path, ".", text);
}

// Pushes the children of a container, the last one first, so that they are visited in order.
void push_children(const Visit& at, std::vector<Visit>& stack) {
  const size_t first = stack.size();
  const pickle::Value& value = at.value;
  if (value.is_dict()) {
    for (size_t i = 0; i < value.size(); ++i) {
      const auto [key, item] = value.entry(i);
      if (may_hold_more(item)) stack.push_back({item, below(at.path, key)});
    }
  } else if (value.is_sequence()) {
    for (size_t i = 0; i < value.size(); ++i) {
      if (may_hold_more(value.at(i))) stack.push_back({value.at(i), cat(at.path, ".", i)});
    }
  } else {
    if (value.args() && value.args().size() > 0) stack.push_back({value.args(), at.path});
    if (value.state()) stack.push_back({value.state(), at.path});
    for (size_t i = 0; i < value.item_count(); ++i) {
      const auto [key, item] = value.item(i);
      if (may_hold_more(item)) stack.push_back({item, below(at.path, key)});
    }
  }
  std::reverse(stack.begin() + static_cast<ptrdiff_t>(first), stack.end());
}

}  // namespace

std::string view_of(const torch::TorchFile& file, const pickle::Value& dict, const ViewPart& part) {
  std::string out = "{";
  for (size_t i = 0; i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    std::optional<std::string> text;
    if (key.text()) text = part(*key.text(), value);
    if (text && text->empty()) continue;
    if (out.size() > 1) out += ',';
    out += json_text(pickle::key_text(key));
    out += ':';
    out += text ? *text : value_json(file, value);
  }
  return out + '}';
}

std::string view_without_tensors(const torch::TorchFile& file, const pickle::Value& dict) {
  std::string out;
  for (size_t i = 0; i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    if (file.tensor(value)) continue;
    out += cat(out.empty() ? "{" : ",", json_text(pickle::key_text(key)), ":", value_json(file, value));
  }
  return out.empty() ? out : out + '}';
}

std::string view_of_optimizer(const torch::TorchFile& file, const pickle::Value& optimizer) {
  return view_of(file, optimizer,
                 [&](std::string_view key, const pickle::Value& value) -> std::optional<std::string> {
                   if (key == "optimizer_state_dict" && value.is_dict())
                     return view_of_optimizer(file, value);  // of a wrapper
                   if (key == "fp32_groups_flat" || key == "fp32_groups") return "";
                   if (key != "state" || !value.is_dict()) return std::nullopt;
                   std::string out;
                   for (size_t i = 0; i < value.size(); ++i) {
                     const auto [id, entry] = value.entry(i);
                     const std::string rest =
                         entry.is_dict() ? view_without_tensors(file, entry) : value_json(file, entry);
                     if (!rest.empty())
                       out += cat(out.empty() ? "{" : ",", json_text(pickle::key_text(id)), ":", rest);
                   }
                   return out.empty() ? out : out + '}';
                 });
}

void walk_values(const pickle::Value& root, const std::string& path, std::span<const std::string_view> skip,
                 const ValueVisitor& visit) {
  std::vector<Visit> stack;
  for (size_t i = root.size(); root.is_dict() && i-- > 0;) {
    const auto [key, value] = root.entry(i);
    const bool skipped = key.text() && std::find(skip.begin(), skip.end(), *key.text()) != skip.end();
    if (!skipped && may_hold_more(value)) stack.push_back({value, below(path, key)});
  }
  std::unordered_set<uint32_t> seen;
  while (!stack.empty()) {
    const Visit at = std::move(stack.back());
    stack.pop_back();
    if (seen.insert(at.value.id()).second && !visit(at.value, at.path)) push_children(at, stack);
  }
}

void find_loose(const torch::TorchFile& file, Source& source, const pickle::Value& root,
                const std::string& path, std::span<const std::string_view> skip,
                std::vector<LooseTensor>& out) {
  walk_values(root, path, skip, [&](const pickle::Value& value, const std::string& at) {
    if (value.kind() != pickle::Kind::kCall && value.kind() != pickle::Kind::kObject) return false;
    if (file.numpy(value)) return true;  // its bytes are in the pickle, which is kept
    auto info = file.tensor(value);
    if (!info) return false;
    source.keep(file, *info);
    out.push_back({at, std::move(*info)});
    return true;
  });
}

}  // namespace uckpt::deepspeed
