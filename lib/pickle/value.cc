#include "lib/pickle/value.h"

#include <bit>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"

namespace uckpt::pickle {

namespace {

const Node& node_of(const Document* doc, uint32_t id) { return doc->node(id); }

Value present(const Document* doc, uint32_t id) { return id == kNoNode ? Value() : Value(doc, id); }

}  // namespace

Kind Value::kind() const { return doc_ ? node_of(doc_, id_).kind : Kind::kNone; }

std::optional<bool> Value::boolean() const {
  if (kind() != Kind::kBool) return std::nullopt;
  return node_of(doc_, id_).a != 0;
}

std::optional<int64_t> Value::integer() const {
  if (kind() != Kind::kInt) return std::nullopt;
  return node_of(doc_, id_).wide();
}

std::optional<double> Value::real() const {
  if (kind() != Kind::kReal) return std::nullopt;
  return std::bit_cast<double>(node_of(doc_, id_).wide());
}

std::optional<double> Value::number() const {
  if (const auto i = integer()) return static_cast<double>(*i);
  return real();
}

std::optional<std::string_view> Value::text() const {
  if (kind() != Kind::kText) return std::nullopt;
  return doc_->text_of(node_of(doc_, id_));
}

std::optional<ByteSpan> Value::bytes() const {
  if (kind() != Kind::kBytes && kind() != Kind::kBigInt) return std::nullopt;
  return doc_->bytes_of(node_of(doc_, id_));
}

bool Value::has_surrogates() const {
  return kind() == Kind::kText && (node_of(doc_, id_).flags & kSurrogates);
}

size_t Value::size() const {
  switch (kind()) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kSet:
    case Kind::kFrozenSet:
    case Kind::kDict:
      return node_of(doc_, id_).c;
    default:
      return 0;
  }
}

Value Value::at(size_t i) const {
  if (kind() == Kind::kDict || i >= size()) return {};
  return {doc_, doc_->links(node_of(doc_, id_))[i]};
}

std::pair<Value, Value> Value::entry(size_t i) const {
  if (kind() != Kind::kDict || i >= size()) return {};
  const auto links = doc_->links(node_of(doc_, id_));
  return {Value(doc_, links[2 * i]), Value(doc_, links[2 * i + 1])};
}

Value Value::get(std::string_view text_key) const {
  return kind() == Kind::kDict ? present(doc_, doc_->find_text(id_, text_key)) : Value();
}

Value Value::get_int(int64_t key) const {
  return kind() == Kind::kDict ? present(doc_, doc_->find_int(id_, key)) : Value();
}

std::string_view Value::global_name() const {
  if (kind() == Kind::kDict) {
    switch (container_type(node_of(doc_, id_))) {
      case ContainerType::kOrderedDict:
        return "collections.OrderedDict";
      case ContainerType::kDefaultDict:
        return "collections.defaultdict";
      case ContainerType::kCounter:
        return "collections.Counter";
      default:
        return "dict";
    }
  }
  const Global* global = pickle::global_of(*this);
  return global ? std::string_view(global->full) : std::string_view();
}

GlobalClass Value::global_class() const {
  if (const Global* global = pickle::global_of(*this)) return global->trust;
  // What is called here is no name but the result of another call.
  return is_call(kind()) ? GlobalClass::kUnknown : GlobalClass::kKnown;
}

Value Value::callable() const {
  return is_call(kind()) || kind() == Kind::kPersistent ? present(doc_, node_of(doc_, id_).a) : Value();
}

Value Value::args() const { return is_call(kind()) ? present(doc_, node_of(doc_, id_).b) : Value(); }

Value Value::state() const {
  if (is_call(kind())) return folded() ? Value() : present(doc_, node_of(doc_, id_).c);
  return kind() == Kind::kDict ? present(doc_, node_of(doc_, id_).d) : Value();
}

std::optional<uint32_t> Value::folded() const {
  if (!doc_ || !is_folded(node_of(doc_, id_))) return std::nullopt;
  return node_of(doc_, id_).c;
}

Value Value::factory() const { return kind() == Kind::kDict ? present(doc_, node_of(doc_, id_).b) : Value(); }

Value Value::attribute(std::string_view name) const {
  const Value given = state();
  if (!given) return {};
  if (given.is_dict()) return given.get(name);
  // Objects with slots pickle as (attributes or None, slots).
  if (given.kind() == Kind::kTuple && given.size() == 2) {
    if (const Value v = given.at(0).get(name)) return v;
    return given.at(1).get(name);
  }
  return {};
}

size_t Value::item_count() const {
  if (!is_call(kind())) return 0;
  return present(doc_, node_of(doc_, id_).d).size();
}

std::pair<Value, Value> Value::item(size_t i) const {
  if (!is_call(kind())) return {};
  const Value items = present(doc_, node_of(doc_, id_).d);
  if (items.is_dict()) return items.entry(i);
  return {Value(), items.at(i)};
}

namespace {

struct Bound {
  std::string_view name;
  int64_t Limits::*field;
  int64_t max;  // what the data structures can hold
};
constexpr int64_t kMax32 = 0xffffffff;
constexpr Bound kBounds[] = {{"pickle_bytes", &Limits::pickle_bytes, kMax32},
                             {"nodes", &Limits::nodes, kMax32 - 1},
                             {"depth", &Limits::depth, 60000},
                             {"string_bytes", &Limits::string_bytes, kMax32},
                             {"global_name", &Limits::global_name, 1 << 20},
                             {"tensor_rank", &Limits::tensor_rank, 255},
                             {"json_bytes", &Limits::json_bytes, int64_t{1} << 40}};

const Bound* bound_of(std::string_view name) {
  for (const Bound& bound : kBounds)
    if (bound.name == name) return &bound;
  return nullptr;
}

}  // namespace

std::optional<int64_t> Limits::most(std::string_view name) {
  const Bound* bound = bound_of(name);
  return bound ? std::optional(bound->max) : std::nullopt;
}

void Limits::set(std::string_view name, int64_t value) {
  if (const Bound* bound = bound_of(name)) {
    if (value < 1 || value > bound->max)
      throw trouble("usage.limit", cat("limit ", name, ": expected 1 to ", bound->max, ", found ", value));
    this->*bound->field = value;
    return;
  }
  std::vector<std::string> names;
  for (const Bound& b : kBounds) names.emplace_back(b.name);
  Error error = trouble("usage.limit", cat("there is no limit called ", escape(name)));
  if (const auto near = nearest(name, names)) error.hint(cat("did you mean ", *near, "?"));
  throw error;
}

}  // namespace uckpt::pickle
