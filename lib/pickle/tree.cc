// The tree for people: `inspect --metadata`.
#include <unordered_map>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/pickle/document.h"
#include "lib/pickle/fields.h"
#include "lib/pickle/json.h"
#include "lib/pickle/numpy.h"
#include "lib/pickle/value_text.h"

namespace uckpt::pickle {

namespace {

class TreeWriter {
 public:
  TreeWriter(size_t max_lines, const TensorLookup& tensors) : max_lines_(max_lines), tensors_(tensors) {}

  std::string run(const Value& root) {
    line(root, "");
    while (!path_.empty() && lines_ < max_lines_) {
      Step& top = path_.back();
      const Field field = field_at(top.value, top.next);
      if (!field.value) {
        open_.erase(top.value.id());
        path_.pop_back();
        continue;
      }
      const size_t index = top.next++;
      line(field.value, cat(label(field, index), ": "));
    }
    if (!path_.empty()) out_ += cat("… (cut at ", max_lines_, " lines)\n");
    return std::move(out_);
  }

 private:
  struct Step {
    Value value;
    size_t next;
  };

  static std::string label(const Field& field, size_t index) {
    if (field.key) return escape(key_text(field.key));
    return field.name.empty() ? cat(index) : std::string(field.name);
  }

  void line(const Value& value, std::string_view prefix) {
    ++lines_;
    out_.append(path_.size() * 2, ' ');
    out_ += prefix;
    out_ += describe(value);
    if (is_nested(value)) nest(value);
    out_ += '\n';
  }

  // Shared parts are shown where they are met first, under a number.
  void nest(const Value& value) {
    if (open_.contains(value.id())) {
      out_ += " <cycle>";
      return;
    }
    const auto [found, is_new] = numbers_.try_emplace(value.id(), numbers_.size() + 1);
    if (!is_new) {
      out_ += cat(" *", found->second);
      return;
    }
    if (!field_at(value, 0).value) return;
    out_ += cat(" &", found->second);
    open_.insert(value.id());
    path_.push_back({value, 0});
  }

  bool is_nested(const Value& value) const {
    switch (value.kind()) {
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kSet:
      case Kind::kFrozenSet:
      case Kind::kDict:
        return true;
      case Kind::kCall:
      case Kind::kObject:
        return !(tensors_ && tensors_(value)) && !is_array(value);
      default:
        return false;
    }
  }

  static bool is_array(const Value& value) { return numpy_array(value).has_value(); }

  std::string describe(const Value& value) const {
    switch (value.kind()) {
      case Kind::kText:
        return cat('"', escape(*value.text()), '"');
      case Kind::kBytes:
        return cat("bytes, ", value.bytes()->size());
      case Kind::kList:
        return cat("list, ", value.size());
      case Kind::kTuple:
        return cat("tuple, ", value.size());
      case Kind::kSet:
        return cat("set, ", value.size());
      case Kind::kFrozenSet:
        return cat("frozenset, ", value.size());
      case Kind::kDict:
        return cat(value.global_name(), ", ", value.size());
      case Kind::kGlobal:
        return cat("<", escape(value.global_name()), ">");
      case Kind::kPersistent:
      case Kind::kCall:
      case Kind::kObject:
        return describe_object(value);
      default:
        return key_text(value);
    }
  }

  std::string describe_object(const Value& value) const {
    if (tensors_) {
      if (const auto label = tensors_(value))
        return cat("tensor ", label->dtype.empty() ? "?" : label->dtype, " ", shape_text(label->shape),
                   label->refusal.empty() ? "" : cat(" (", escape(label->refusal), ")"));
    }
    if (value.kind() == Kind::kPersistent) return cat("persistent id ", escape(key_text(value.callable())));
    if (const auto array = numpy_array(value))
      return cat(array->is_scalar ? "numpy scalar " : "numpy array ", info(array->dtype).torch, " ",
                 shape_text(array->shape));
    return escape(value.global_name().empty() ? "<computed>" : value.global_name());
  }

  size_t max_lines_;
  const TensorLookup& tensors_;
  std::string out_;
  size_t lines_ = 0;
  std::vector<Step> path_;
  std::unordered_set<uint32_t> open_;
  std::unordered_map<uint32_t, size_t> numbers_;
};

}  // namespace

std::string to_tree(const Value& value, size_t max_lines, const TensorLookup& tensors) {
  if (!value) return "";
  return TreeWriter(max_lines, tensors).run(value);
}

}  // namespace uckpt::pickle
