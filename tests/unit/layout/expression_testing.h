// Random shape expressions, and a reference for them that handles elements one by one, as numpy's reshape,
// concatenate and split would.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/layout/facts.h"

namespace uckpt::layout::testing {

// The elements of one dim that a rank holds, in order; -1 is padding.
struct Held {
  int64_t whole = 1;
  std::vector<int64_t> elements = {0};
};

// Random expressions as text, and the reference's answer for a given rank.
class Sampler {
 public:
  explicit Sampler(uint32_t seed) : random_(seed) {}
  // For a target, whose sizes are known: cuts of axes may be even, or have explicit shares.
  Sampler(uint32_t seed, const Coordinate& mesh) : random_(seed), mesh_(&mesh) {}

  int64_t pick(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random_); }

  struct Node {
    enum Kind { kAxis, kConcat } kind = kAxis;
    int64_t size = 1, pad = 0;
    std::string name;
    std::vector<std::vector<Node>> blocks;
    std::vector<std::string> cuts;  // mesh axes
    std::string how = "[chunk]";    // of the cuts
    std::vector<int64_t> widths;    // of the only cut; empty: ceil-sized
  };

  // The local length before the cuts of a group is known to the reference only: they are `chunk`.
  std::vector<Node> dim(int depth, std::vector<std::string> free) {
    std::vector<Node> out;
    const int64_t count = pick(1, depth > 1 ? 3 : 2);
    for (int64_t i = 0; i < count; ++i) {
      Node n;
      if (depth > 0 && pick(0, 2) == 0) {
        n.kind = Node::kConcat;
        const int64_t blocks = pick(1, depth > 1 ? 3 : 2);
        std::vector<std::string> inner = free;
        if (!inner.empty() && pick(0, 1)) n.cuts = take(inner);
        for (int64_t b = 0; b < blocks; ++b) n.blocks.push_back(dim(depth - 1, inner));
        free.clear();  // an axis cuts a block once
      } else {
        n.size = pick(1, 4);
        n.name = cat("x", next_++);
        if (pick(0, 3) == 0) n.pad = pick(1, 4);
        if (!free.empty() && pick(0, 1)) n.cuts = take(free);
        if (mesh_ && n.cuts.size() == 1) choose_shares(n);
      }
      out.push_back(std::move(n));
    }
    return out;
  }

  std::string text(const std::vector<Node>& dim) {
    std::string out;
    for (const Node& n : dim) {
      if (!out.empty()) out += ' ';
      if (n.kind == Node::kAxis) {
        out += n.name;
        where_ += cat(where_.empty() ? "" : ", ", n.name, " = ", n.size);
      } else {
        out += "(";
        for (size_t b = 0; b < n.blocks.size(); ++b)
          out += cat(b ? " | " : "", n.blocks.size() > 1 ? cat("b", b, ": ") : "", text(n.blocks[b]));
        out += ")";
      }
      if (n.pad) out += cat(" pad(", n.pad, ")");
      if (!n.cuts.empty()) {
        out += " @(";
        for (size_t c = 0; c < n.cuts.size(); ++c) out += cat(c ? ", " : "", n.cuts[c], n.how);
        out += ")";
      }
    }
    return out;
  }
  const std::string& where() const { return where_; }

  static Held held(const std::vector<Node>& dim, const Coordinate& at, const Coordinate& mesh) {
    Held out;
    for (const Node& n : dim) {
      Held h;
      if (n.kind == Node::kAxis) {
        h.whole = n.size;
        h.elements.clear();
        for (int64_t i = 0; i < n.size; ++i) h.elements.push_back(i);
      } else {
        h = {0, {}};
        for (const auto& block : n.blocks) {
          const Held b = held(block, at, mesh);
          for (const int64_t e : b.elements) h.elements.push_back(e < 0 ? -1 : e + h.whole);
          h.whole += b.whole;
        }
      }
      while (n.pad && static_cast<int64_t>(h.elements.size()) % n.pad) h.elements.push_back(-1);
      for (const std::string& axis : n.cuts) {
        const auto length = static_cast<int64_t>(h.elements.size());
        const int64_t step = ceil_div(length, mesh.at(axis));
        int64_t begin = std::min(length, at.at(axis) * step), end = std::min(length, begin + step);
        if (!n.widths.empty() && mesh.at(axis) > 1) {
          const auto place = n.widths.begin() + at.at(axis);
          begin = std::accumulate(n.widths.begin(), place, int64_t{0});
          end = begin + *place;
        }
        h.elements = std::vector<int64_t>(h.elements.begin() + begin, h.elements.begin() + end);
      }
      Held both{out.whole * h.whole, {}};
      for (const int64_t a : out.elements)
        for (const int64_t b : h.elements) both.elements.push_back(a < 0 || b < 0 ? -1 : a * h.whole + b);
      out = both;
    }
    return out;
  }

 private:
  void choose_shares(Node& n) {
    const int64_t length = n.pad ? round_up(n.size, n.pad) : n.size, ranks = mesh_->at(n.cuts.front());
    if (length % ranks == 0 && pick(0, 1)) {
      n.how = pick(0, 1) ? "" : "[even]";
    } else if (pick(0, 1)) {
      std::vector<int64_t> lines = {0, length};
      for (int64_t i = 1; i < ranks; ++i) lines.push_back(pick(0, length));
      std::sort(lines.begin(), lines.end());
      n.how = "[";
      for (size_t i = 1; i < lines.size(); ++i) {
        n.widths.push_back(lines[i] - lines[i - 1]);
        n.how += cat(i > 1 ? "," : "", n.widths.back());
      }
      n.how += "]";
    }
  }
  std::vector<std::string> take(std::vector<std::string>& free) {
    std::vector<std::string> out;
    const auto count = static_cast<size_t>(pick(1, static_cast<int64_t>(free.size())));
    for (size_t i = 0; i < count; ++i) {
      out.push_back(free.back());
      free.pop_back();
    }
    return out;
  }

  std::mt19937 random_;
  const Coordinate* mesh_ = nullptr;
  int next_ = 0;
  std::string where_;
};

}  // namespace uckpt::layout::testing
