// What REDUCE, NEWOBJ, INST and OBJ make of a global. Containers and bytes of the language become nodes of
// their kind; every other call stays a call, whatever its name.
#include <algorithm>
#include <array>

#include "lib/base/text.h"
#include "lib/pickle/builder.h"
#include "lib/pickle/utf8.h"

namespace uckpt::pickle {

namespace {

constexpr std::string_view kComputed = "<computed>";
constexpr std::string_view kGetattr = "builtins.getattr";

bool is_latin1(std::string_view codec) {
  return codec == "latin1" || codec == "latin-1" || codec == "iso-8859-1";
}

}  // namespace

void Builder::meet_danger(const Global& global, bool is_call) {
  if (global.trust != GlobalClass::kDangerous) return;
  std::optional<Danger>& danger = doc_->danger_;
  if (!danger || (is_call && !danger->is_call)) danger = Danger{global.full, place_.at, is_call};
}

uint32_t Builder::named(std::string_view module, std::string_view name, int protocol) {
  for (std::string_view part : {module, name}) {
    if (static_cast<int64_t>(part.size()) > limits_.global_name)
      throw place_.error("limit.global_name", cat("expected a name of at most ", limits_.global_name,
                                                  " bytes, found ", part.size()));
    const ByteSpan bytes(reinterpret_cast<const uint8_t*>(part.data()), part.size());
    if (check_utf8(bytes) != Utf8Check::kGood)
      throw place_.error("pickle.utf8", "expected a name in UTF-8, found other bytes");
  }
  const auto [found, is_new] = global_nodes_.try_emplace(cat(protocol, '\n', module, '\n', name), kNoNode);
  if (is_new) {
    Node made;
    made.kind = Kind::kGlobal;
    made.a = static_cast<uint32_t>(doc_->globals_.size());
    doc_->globals_.push_back(make_global(module, name, protocol));
    found->second = add(made);
    if (doc_->globals_.back().full == kGetattr) getattrs_.push_back({found->second, place_.at});
  }
  // What becomes of getattr is seen at the end.
  if (const Global& global = doc_->globals_[node(found->second).a]; global.full != kGetattr)
    meet_danger(global, false);
  return found->second;
}

// getattr(class, "name"), with constants only, is how pickles before protocol 4 name a class in a class.
uint32_t Builder::nested_class(uint32_t callable, uint32_t args) {
  if (node(callable).kind != Kind::kGlobal || doc_->globals_[node(callable).a].full != kGetattr)
    return kNoNode;
  if (node(args).kind != Kind::kTuple || node(args).c != 2) return kNoNode;
  const auto parts = doc_->links(node(args));
  if (node(parts[0]).kind != Kind::kGlobal || node(parts[1]).kind != Kind::kText) return kNoNode;
  const Global& outer = doc_->globals_[node(parts[0]).a];
  if (outer.trust != GlobalClass::kUnknown || outer.known != Known::kNone) return kNoNode;
  const std::string_view inner = doc_->text_of(node(parts[1]));
  const std::string module(outer.module()), name = cat(outer.name(), '.', inner);
  if (inner.find('.') != inner.npos || !is_nested_class(module, name)) return kNoNode;
  has_nested_ = true;
  return named(module, name, std::max(protocol_, 4));
}

// Where getattr did nothing but name classes it is no danger; anything else is one.
void Builder::settle_getattr(uint32_t root) {
  for (const Getattr& met : getattrs_) {
    Global& global = doc_->globals_[node(met.node).a];
    const bool is_used = (node(met.node).flags & kHasParent) != 0 || met.node == root;
    if (has_nested_ && !is_used)
      global.trust = GlobalClass::kKnown;
    else if (!doc_->danger_)
      doc_->danger_ = Danger{global.full, met.at, false};
  }
}

uint32_t Builder::stack_global(uint32_t module, uint32_t name) {
  const auto part = [&](uint32_t id) -> std::string_view {
    if (node(id).kind == Kind::kText) return doc_->text_of(node(id));
    if (is_call(node(id).kind)) return kComputed;
    throw place_.error("pickle.global",
                       "expected the names of a module and of something in it, found other values");
  };
  const std::string_view module_text = part(module), name_text = part(name);
  const bool computed = node(module).kind != Kind::kText || node(name).kind != Kind::kText;
  const uint32_t id = global(module_text, name_text);
  if (computed) {
    Global& made = doc_->globals_[node(id).a];
    made.trust = GlobalClass::kDangerous;
    made.known = Known::kNone;
    meet_danger(made, false);
  }
  return id;
}

uint32_t Builder::call(Kind kind, uint32_t callable, uint32_t args) {
  Node made;
  made.kind = kind;
  made.a = callable;
  made.b = args;
  made.c = kNoNode;
  made.depth = 1;
  const uint32_t id = add(made);
  adopt(id, callable);
  adopt(id, args);
  return id;
}

void Builder::check_callable(uint32_t callable, uint32_t args, bool is_call_of) {
  const Kind kind = node(callable).kind;
  if (kind != Kind::kGlobal && !is_call(kind))
    throw place_.error("pickle.callable", "expected a class or function, found a plain value");
  if (node(args).kind != Kind::kTuple)
    throw place_.error("pickle.arguments", "expected a tuple of arguments, found something else");
  if (const Global* global = doc_->global_of(callable); global && kind == Kind::kGlobal)
    meet_danger(*global, is_call_of);
}

uint32_t Builder::reduce(uint32_t callable, uint32_t args) {
  if (const uint32_t cls = nested_class(callable, args); cls != kNoNode) return cls;
  check_callable(callable, args, true);
  const Node& target = node(callable);
  if (target.kind == Kind::kGlobal) {
    const uint32_t made = make_known(doc_->globals_[target.a].known, args);
    if (made != kNoNode) {
      set_depth(node(made), node(args).depth + 1u);
      return made;
    }
  }
  return call(Kind::kCall, callable, args);
}

uint32_t Builder::new_object(uint32_t cls, uint32_t args, uint32_t keywords) {
  check_callable(cls, args, true);
  if (keywords != kNoNode) {
    if (node(keywords).kind != Kind::kDict)
      throw place_.error("pickle.arguments", "expected a dict of named arguments, found something else");
    // Named arguments stand last, so that nothing is lost.
    if (node(keywords).c > 0) {
      std::vector<uint32_t> all = gather(args);
      all.push_back(keywords);
      const uint32_t id = call(Kind::kObject, cls, tuple(all));
      set_type(id, ContainerType::kNamedArguments);
      return id;
    }
  }
  const Node& target = node(cls);
  if (target.kind == Kind::kGlobal) {
    const Known known = doc_->globals_[target.a].known;
    const bool is_container = known >= Known::kDict && known <= Known::kFrozenSet;
    const uint32_t made = is_container ? make_known(known, args) : kNoNode;
    if (made != kNoNode) {
      set_depth(node(made), node(args).depth + 1u);
      return made;
    }
  }
  return call(Kind::kObject, cls, args);
}

// An old class is called where there are arguments, and made without a call where there are none.
uint32_t Builder::instance(uint32_t cls, std::span<const uint32_t> args) {
  return args.empty() ? new_object(cls, kEmptyTuple) : reduce(cls, tuple(args));
}

uint32_t Builder::make_known(Known known, uint32_t args_id) {
  const bool is_ours = (known >= Known::kDict && known <= Known::kByteArray) || known == Known::kSize ||
                       (known >= Known::kEncode && known <= Known::kNewObjExFunction);
  if (!is_ours) return kNoNode;
  const std::vector<uint32_t> args = gather(args_id);
  switch (known) {
    case Known::kDict:
      return make_dict(ContainerType::kPlain, args);
    case Known::kOrderedDict:
      return make_dict(ContainerType::kOrderedDict, args);
    case Known::kCounter:
      return make_dict(ContainerType::kCounter, args);
    case Known::kDefaultDict:
      return make_default_dict(args);
    case Known::kList:
    case Known::kTuple:
    case Known::kSize:
    case Known::kSet:
    case Known::kFrozenSet:
      return make_sequence(known, args);
    case Known::kBytesClass:
    case Known::kByteArray:
      return make_bytes(known, args);
    case Known::kEncode:
      if (args.size() != 2 || node(args[0]).kind != Kind::kText || node(args[1]).kind != Kind::kText)
        return kNoNode;
      return is_latin1(doc_->text_of(node(args[1]))) ? encode_latin1(args[0]) : kNoNode;
    case Known::kReconstructor:
      return reconstruct(args);
    case Known::kNewObjFunction:
      if (args.empty() || node(args[0]).kind != Kind::kGlobal) return kNoNode;
      return new_object(args[0], tuple(std::span(args).subspan(1)));
    case Known::kNewObjExFunction:
      if (args.size() != 3 || node(args[0]).kind != Kind::kGlobal) return kNoNode;
      if (node(args[1]).kind != Kind::kTuple || node(args[2]).kind != Kind::kDict) return kNoNode;
      return new_object(args[0], args[1], args[2]);
    default:
      return kNoNode;
  }
}

// dict(), dict(mapping), dict([(key, value), …]); anything else stays a call.
uint32_t Builder::make_dict(ContainerType type, std::span<const uint32_t> args) {
  if (args.size() > 1) return kNoNode;
  std::vector<uint32_t> pairs;
  if (args.size() == 1) {
    const Kind kind = node(args[0]).kind;
    if (kind != Kind::kDict && kind != Kind::kList && kind != Kind::kTuple) return kNoNode;
    pairs = gather(args[0]);
    if (kind != Kind::kDict) {
      std::vector<uint32_t> flat;
      for (uint32_t pair : pairs) {
        const Kind k = node(pair).kind;
        if ((k != Kind::kList && k != Kind::kTuple) || node(pair).c != 2) return kNoNode;
        const std::vector<uint32_t> two = gather(pair);
        flat.insert(flat.end(), two.begin(), two.end());
      }
      pairs = std::move(flat);
    }
    charge(pairs.size() * 16);
  }
  const uint32_t id = container(Kind::kDict, type);
  set_items(id, pairs);
  return id;
}

uint32_t Builder::make_default_dict(std::span<const uint32_t> args) {
  const uint32_t id = make_dict(ContainerType::kDefaultDict, args.empty() ? args : args.subspan(1));
  if (id != kNoNode && !args.empty() && node(args[0]).kind != Kind::kNone) {
    adopt(id, args[0]);
    factories_.emplace_back(id, args[0]);
  }
  return id;
}

uint32_t Builder::make_sequence(Known known, std::span<const uint32_t> args) {
  if (args.size() > 1) return kNoNode;
  std::vector<uint32_t> items;
  if (args.size() == 1) {
    const Kind kind = node(args[0]).kind;
    if (kind != Kind::kList && kind != Kind::kTuple && kind != Kind::kSet && kind != Kind::kFrozenSet)
      return kNoNode;
    items = gather(args[0]);
    charge(items.size() * sizeof(uint32_t));
  }
  if (known == Known::kList || known == Known::kSet) {
    const uint32_t id = container(known == Known::kList ? Kind::kList : Kind::kSet);
    if (known == Known::kList)
      append(id, items);
    else
      add_items(id, items);
    return id;
  }
  const uint32_t id = fixed(known == Known::kFrozenSet ? Kind::kFrozenSet : Kind::kTuple, items);
  if (known == Known::kSize) set_type(id, ContainerType::kTorchSize);
  return id;
}

// bytes and bytearray: of nothing, of bytes, of (text, "latin-1"). A number is no bytes: nothing is allocated
// for it.
uint32_t Builder::make_bytes(Known known, std::span<const uint32_t> args) {
  uint32_t id = kNoNode;
  if (args.empty()) {
    id = bytes(0, {});
  } else if (const Node first = node(args[0]); args.size() == 1 && first.kind == Kind::kBytes) {
    id = share_bytes(first);
  } else if (args.size() == 2 && first.kind == Kind::kText && node(args[1]).kind == Kind::kText &&
             is_latin1(doc_->text_of(node(args[1])))) {
    id = encode_latin1(args[0]);
  }
  if (id != kNoNode && known == Known::kByteArray) set_type(id, ContainerType::kByteArray);
  return id;
}

// How protocol 2 spells bytes: each code point is one byte.
uint32_t Builder::encode_latin1(uint32_t id) {
  const ByteSpan text = doc_->bytes_of(node(id));
  if (is_ascii(text)) return share_bytes(node(id));
  charge(text.size());
  Bytes out;
  for (size_t i = 0; i < text.size();) {
    const uint32_t code = next_code_point(text, i);
    if (code > 0xff) throw place_.error("pickle.latin1", "expected text of latin-1 characters, found others");
    out.push_back(static_cast<uint8_t>(code));
  }
  return add_span(Kind::kBytes, kDecoded, decoded(out), out.size());
}

// copyreg._reconstructor(class, object, None): how protocol 2 spells an instance without __new__ arguments.
uint32_t Builder::reconstruct(std::span<const uint32_t> args) {
  if (args.size() != 3 || node(args[0]).kind != Kind::kGlobal || node(args[2]).kind != Kind::kNone)
    return kNoNode;
  const Global* base = doc_->global_of(args[1]);
  if (!base || base->known != Known::kObjectClass) return kNoNode;
  return new_object(args[0], kEmptyTuple);
}

}  // namespace uckpt::pickle
