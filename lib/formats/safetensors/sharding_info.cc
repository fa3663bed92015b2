#include "lib/formats/safetensors/sharding_info.h"

#include <algorithm>
#include <cstdint>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/strict_json.h"

namespace uckpt::safetensors {

namespace {

// {"name": {"saved_offsets": [0, 10]}, …}
class InfoVisitor final : public JsonVisitor {
 public:
  std::unordered_map<std::string, Shape> offsets;

  void open_object() override {
    if (in_list_ || depth_ > 1) fail("an object");
    ++depth_;
  }
  void open_array() override {
    if (in_list_ || depth_ != 2 || field_ != "saved_offsets") fail("a list");
    in_list_ = true;
    offsets[name_].clear();
  }
  void close() override {
    if (in_list_)
      in_list_ = false;
    else
      --depth_;
  }
  void key(const std::string& key) override { (depth_ == 1 ? name_ : field_) = key; }
  void text(const std::string&) override { fail("a string"); }
  void count(uint64_t value) override {
    if (!in_list_ || value > INT64_MAX) fail("a number");
    offsets[name_].push_back(static_cast<int64_t>(value));
  }
  void other(std::string_view what) override { fail(what); }

 private:
  [[noreturn]] void fail(std::string_view found) const {
    throw refused("dcp.sharding_info",
                  cat(kShardingKey, ": expected the saved offsets of each tensor, found ", found))
        .in_tensor(name_);
  }

  std::string name_, field_;
  int depth_ = 0;
  bool in_list_ = false;
};

}  // namespace

std::unordered_map<std::string, Shape> saved_offsets(const Header& header) {
  const std::string* info = header.metadata_value(kShardingKey);
  if (info == nullptr) return {};
  InfoVisitor visitor;
  parse_strict_json(*info, kMaxJsonDepth, visitor);
  return std::move(visitor.offsets);
}

bool are_boxes_at_zero(const Header& header) try {
  const auto offsets = saved_offsets(header);
  return std::ranges::all_of(header.entries, [&](const Entry& entry) {
    const auto begin = offsets.find(entry.name);
    return begin != offsets.end() && begin->second.size() == entry.shape.size() &&
           std::ranges::all_of(begin->second, [](int64_t at) { return at == 0; });
  });
} catch (const Error&) {
  return false;
}

}  // namespace uckpt::safetensors
