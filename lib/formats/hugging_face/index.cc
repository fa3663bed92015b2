#include "lib/formats/hugging_face/index.h"

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/strict_json.h"

namespace uckpt::hugging_face {
namespace {

constexpr int64_t kMaxBytes = 100'000'000;
constexpr int kMaxDepth = 8;

// A shard lies in the folder of its index and nowhere else.
void check_shard_name(const std::string& shard) {
  if (shard.empty() || shard == "." || shard == ".." || shard.find('/') != std::string::npos ||
      shard.find('\0') != std::string::npos) {
    throw refused("name.escapes",
                  cat("shard `", escape(shard), "`: expected the name of a file in the folder of the index"));
  }
}

// Walks {"metadata": {…}, "weight_map": {tensor: shard}}.
class IndexVisitor final : public JsonVisitor {
 public:
  IndexVisitor(Index& index, const std::string& code) : index_(index), code_(code) {}
  bool found() const { return found_; }

  void open_object() override {
    if (in_map_) scalar("an object");
    in_map_ = depth_ == 1 && key_ == "weight_map";
    in_metadata_ = depth_ == 1 && key_ == "metadata";
    found_ |= in_map_;
    ++depth_;
  }
  void open_array() override {
    scalar("a list");
    ++depth_;
  }
  void close() override {
    --depth_;
    in_map_ = in_metadata_ = false;
  }
  void key(const std::string& name) override { key_ = name; }
  void text(const std::string& value) override {
    if (!in_map_) return scalar("a string");
    check_shard_name(value);
    index_.shard_of.emplace(key_, value);
  }
  void count(uint64_t value) override {
    scalar("a number");
    if (in_metadata_ && key_ == "total_size") index_.total_size = value;
  }
  void other(std::string_view what) override { scalar(what); }

 private:
  void scalar(std::string_view found) {
    if (depth_ == 0) throw refused(code_, cat("index: expected an object, found ", found));
    if (in_map_) {
      throw refused(code_, cat("index: expected a file name, found ", found)).in_tensor(key_);
    }
  }

  Index& index_;
  const std::string& code_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false, in_metadata_ = false;
  bool found_ = false;
};

}  // namespace

std::vector<std::string> Index::shards() const {
  std::set<std::string> unique;
  for (const auto& [tensor, shard] : shard_of) unique.insert(shard);
  std::vector<std::string> names(unique.begin(), unique.end());
  std::ranges::sort(names, natural_less);
  return names;
}

Index read_index(const ByteSource& file, std::string_view format) try {
  const std::string code = cat(format, ".index");
  if (file.size() > kMaxBytes)
    throw refused(code, cat("index: expected at most ", kMaxBytes, " bytes, found ", file.size()));
  const Bytes bytes = file.read_range(0, file.size());
  Index index;
  IndexVisitor visitor(index, code);
  parse_strict_json(std::string(bytes.begin(), bytes.end()), kMaxDepth, visitor);
  if (!visitor.found()) throw refused(code, "index: field `weight_map` is missing");
  return index;
} catch (Error& e) {
  throw e.in_file(file.name());
}

}  // namespace uckpt::hugging_face
