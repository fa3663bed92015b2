// Random pickles of every protocol, with shared parts and cycles: what is read, written and read again is the
// same graph, and writing that again gives the same bytes.
#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "lib/base/text.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"
#include "tests/unit/pickle/same_graph.h"

using namespace uckpt;
using namespace uckpt::pickle;

namespace {

class RandomPickle {
 public:
  explicit RandomPickle(unsigned seed) : random_(seed) {}

  Bytes make() {
    out_ = "\x80\x05";
    value(6);
    out_ += '.';
    return {out_.begin(), out_.end()};
  }

 private:
  size_t below(size_t n) { return random_() % n; }
  void add(std::string_view bytes) { out_ += bytes; }
  void little(uint64_t number, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(number >> 8 * i & 0xff);
  }
  void put() {
    out_ += 'r';
    little(memos_.size(), 4);
    memos_.push_back(true);
  }
  bool get() {
    if (memos_.empty()) return false;
    out_ += 'j';
    little(below(memos_.size()), 4);
    return true;
  }
  void maybe_put() {
    if (below(2) == 0) put();
  }
  void text(std::string_view text) {
    const size_t kind = below(3);
    out_ += kind == 0 ? 'X' : kind == 1 ? '\x8c' : '\x8d';
    little(text.size(), kind == 0 ? 4 : kind == 1 ? 1 : 8);
    add(text);
  }
  void global(std::string_view module, std::string_view name) {
    if (below(3) != 0) return add(cat('c', module, '\n', name, '\n'));
    text(module), text(name);
    out_ += '\x93';
  }

  // Different each time, as keys and members must be.
  void key(int depth = 2) {
    const uint64_t number = ++keys_;
    switch (below(depth > 0 ? 6 : 4)) {
      case 0:
        out_ += 'J';
        return little(number, 4);
      case 1:
        out_ += 'G';
        for (int i = 7; i >= 0; --i)
          out_ +=
              static_cast<char>(std::bit_cast<uint64_t>(static_cast<double>(number) + 0.5) >> 8 * i & 0xff);
        return;
      case 2:
        out_ += 'C';
        out_ += '\x04';
        return little(number, 4);
      case 3:
        return text(cat("key", number));
      default:
        key(depth - 1), key(depth - 1);
        out_ += '\x86';
        return maybe_put();
    }
  }

  void plain() {
    switch (below(10)) {
      case 0:
        return add("N");
      case 1:
        return add(below(2) ? "\x88" : "\x89");
      case 2:
        add("\x8a\x0a");
        little(random_(), 8);
        return little(random_(), 2);
      case 3:
        add("\x8a\x06");
        return little(random_(), 6);
      case 4:
        out_ += 'G';
        little(random_(), 4);
        return little(random_(), 4);
      case 5:
        return text(below(2) ? "\xed\xb2\x80" : "\xc3\xa9t\xc3\xa9");
      case 6:
        add(below(2) ? "\x8e" : "\x96");  // bytes, bytearray
        little(8, 8);
        little(random_(), 4), little(random_(), 4);
        return;
      case 7:
        return global("torch", "bfloat16");
      case 8:
        text("id");
        return add("Q");
      default:
        return add(")");
    }
  }

  void items(int depth, void (RandomPickle::*one)(int), size_t most, std::string_view put_in) {
    size_t left = below(most + 1);
    while (left > 0) {
      const size_t now = 1 + below(left);
      add("(");
      for (size_t i = 0; i < now; ++i) (this->*one)(depth);
      add(put_in);
      left -= now;
    }
  }
  void pair(int depth) { key(), value(depth); }
  void member(int) { key(); }

  void tuple(int depth, size_t size) {
    add("(");
    for (size_t i = 0; i < size; ++i) value(depth);
    add("t");
  }

  // A thing that is made of a list that then takes it in.
  void inside_out(int depth) {
    add("]");
    put();
    const size_t list = memos_.size() - 1;
    add("0");
    const size_t kind = below(4);
    if (kind == 1) global("m", "f");
    if (kind == 2) global("m", "C");
    const bool small = below(2) == 0;
    add("(j");
    little(list, 4);
    if (!small) value(depth), value(depth), value(depth);
    add("t");
    if (kind == 1) add("R");
    if (kind == 2) add("\x81");
    if (kind == 3 && small) add("0]0"), add("j"), little(list, 4);
    put();
    add("j");
    little(list, 4);
    add("j");
    little(memos_.size() - 1, 4);
    add("a0");
  }

  void dict_type() {
    switch (below(5)) {
      case 0:
        global("collections", "OrderedDict");
        return add(")R");
      case 1:
        global("collections", "Counter");
        return add(")R");
      case 2:
        global("collections", "defaultdict");
        global("builtins", "list");
        return add("\x85R");
      default:
        return add("}");
    }
  }

  void call(int depth) {
    const size_t kind = below(3);
    global("m", kind == 0 ? "f" : "C");
    tuple(depth, below(4));
    if (kind == 2) {
      add("}(");
      key(), plain();
      add("u\x92");
    } else {
      add(kind == 0 ? "R" : "\x81");
    }
    maybe_put();
    if (below(3) == 0) items(depth, &RandomPickle::pair, 3, "u");
    if (below(2) == 0) {
      value(depth);
      add("b");
    }
  }

  void value(int depth) {
    if (below(4) == 0 && get()) return;
    if (depth == 0) return plain();
    switch (below(12)) {
      case 0:
      case 1:
        add("]");
        maybe_put();
        return items(depth - 1, &RandomPickle::value, 5, "e");
      case 2:
      case 3:
      case 4:
        dict_type();
        maybe_put();
        items(depth - 1, &RandomPickle::pair, 5, "u");
        if (below(5) == 0) {
          value(depth - 1);
          add("b");
        }
        return;
      case 5:
        tuple(depth - 1, below(6));
        return maybe_put();
      case 6:
        add("\x8f");
        maybe_put();
        return items(depth, &RandomPickle::member, 4, "\x90");
      case 7:
        add("(");
        for (size_t i = below(4); i > 0; --i) key();
        add("\x91");
        return maybe_put();
      case 8:
      case 9:
        return call(depth - 1);
      case 10:
        return inside_out(depth - 1);
      default:
        plain();
        return maybe_put();
    }
  }

  std::mt19937 random_;
  std::string out_;
  std::vector<bool> memos_;
  uint64_t keys_ = 0;
};

Bytes write(const Value& value) {
  Pickler out;
  out.copy(value);
  return out.finish();
}

}  // namespace

TEST_CASE("random pickles come back as they were") {
  int cyclic = 0, plain = 0;
  for (unsigned seed = 0; seed < 4000; ++seed) {
    CAPTURE(seed);
    const auto first = parse_whole(RandomPickle(seed).make(), {});
    const Bytes once = write(first->root());
    const auto second = parse_whole(once, {});
    const std::string difference = graph_difference(first->root(), second->root());
    REQUIRE(difference == "");
    REQUIRE(write(second->root()) == once);
    if (first->cyclic()) {
      ++cyclic;
    } else if (++plain % 8 == 0) {
      REQUIRE(to_json(first->root(), {}) == to_json(second->root(), {}));
    }
  }
  CHECK(cyclic > 300);
  CHECK(plain > 300);
}

TEST_CASE("random pickles that come in parts are the same") {
  struct Nothing final : Folder {
    std::optional<uint8_t> wants(const Global&) const override { return std::nullopt; }
    std::optional<uint32_t> fold(uint8_t, const Value&) override { return std::nullopt; }
  } nothing;
  for (unsigned seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    const Bytes pickle = RandomPickle(seed).make();
    const auto read = [&](size_t at, std::span<uint8_t> out) {
      std::copy_n(pickle.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
    };
    const auto parts = parse_folding(pickle.size(), read, nothing, {});
    const auto whole = parse_whole(pickle, {});
    REQUIRE(graph_difference(whole->root(), parts->root()) == "");
    REQUIRE(whole->cyclic() == parts->cyclic());
  }
}
