#include "lib/layout/regrouped.h"

#include <algorithm>
#include <functional>

#include "lib/base/text.h"
#include "lib/layout/carry.h"

namespace uckpt::layout {

namespace {

class Filler {
 public:
  Filler(Catalog& catalog, Tensor& target, const std::vector<Contribution>& from)
      : catalog_(catalog), target_(target), from_(from), numel_(numel_of(target.shape)) {}

  void run() {
    for (const Contribution& c : from_)
      if (target_.refusal.empty()) target_.refusal = c.tensor->refusal;
    if (!target_.refusal.empty()) return;
    if (item_size(target_.dtype) == 0) {
      target_.refusal = cat("a tensor of type ", name_of(target_.dtype), " cannot be regrouped");
      return;
    }
    target_.pieces = carry(target_.dtype, [](const Tensor& t) { return t.pieces; });
    carry_means();
    carry_copies();
  }

 private:
  using Choose = std::function<PieceRange(const Tensor&)>;

  PieceRange carry(DType dtype, const Choose& choose) {
    const uint32_t mark = catalog_.piece_mark();
    for (const Contribution& c : from_)
      carry_pieces(catalog_, choose(*c.tensor), c.strand, numel_of(c.tensor->shape), numel_,
                   item_size(dtype));
    return make_nest(catalog_, catalog_.pieces_since(mark), numel_, item_size(dtype));
  }

  void carry_means() {
    const size_t count = from_.front().tensor->averaged_with.size();
    const bool alike = std::all_of(from_.begin(), from_.end(), [&](const Contribution& c) {
      return c.tensor->averaged_with.size() == count;
    });
    if (!alike) target_.refusal = "parts of it are means of different numbers of tensors";
    for (size_t i = 0; alike && i < count; ++i)
      target_.averaged_with.push_back(
          carry(target_.dtype, [i](const Tensor& t) { return t.averaged_with[i]; }));
  }

  // The n-th copies of all sources are one copy of the target, as far as they are of one kind. A module
  // weight must be whole: it may be kept beside the tensor.
  void carry_copies() {
    size_t most = 0;
    for (const Contribution& c : from_) most = std::max(most, c.tensor->copies.size());
    for (size_t n = 0; n < most; ++n) {
      std::vector<const Copy*> kinds;
      size_t have = 0;
      for (const Contribution& c : from_) {
        if (n >= c.tensor->copies.size()) continue;
        ++have;
        const Copy& copy = c.tensor->copies[n];
        const bool known =
            std::any_of(kinds.begin(), kinds.end(), [&](const Copy* k) { return same(*k, copy); });
        if (!known) kinds.push_back(&copy);
      }
      const bool everywhere = kinds.size() == 1 && have == from_.size();
      for (const Copy* kind : kinds) {
        if (item_size(kind->dtype) == 0 || (is_whole_module(*kind) && !everywhere)) continue;
        const Copy wanted = *kind;
        const PieceRange pieces = carry(wanted.dtype, [&](const Tensor& t) {
          return n < t.copies.size() && same(t.copies[n], wanted) ? t.copies[n].pieces : PieceRange{};
        });
        target_.copies.push_back({pieces, wanted.dtype, wanted.is_module, wanted.what, wanted.is_replica});
      }
    }
  }

  static bool is_whole_module(const Copy& copy) { return copy.is_module && !copy.is_replica; }
  static bool same(const Copy& a, const Copy& b) {
    return a.dtype == b.dtype && a.is_module == b.is_module && a.is_replica == b.is_replica;
  }

  Catalog& catalog_;
  Tensor& target_;
  const std::vector<Contribution>& from_;
  const int64_t numel_;
};

}  // namespace

bool is_all_of(const Strand& strand, int64_t numel) {
  if (strand.local != 0 || strand.logical != 0) return false;
  if (strand.steps.empty()) return numel == 1;
  return strand.steps.size() == 1 && strand.steps[0] == Step{numel, 1, 1};
}

void fill(Catalog& catalog, Tensor& target, const std::vector<Contribution>& contributions) {
  const Contribution& first = contributions.front();
  const int64_t numel = numel_of(target.shape);
  const bool unchanged =
      numel_of(first.tensor->shape) == numel && (numel == 0 || is_all_of(first.strand, numel));
  if (contributions.size() == 1 && unchanged) {
    target.refusal = first.tensor->refusal;
    target.pieces = first.tensor->pieces;
    target.copies = first.tensor->copies;
    target.averaged_with = first.tensor->averaged_with;
    return;
  }
  Filler(catalog, target, contributions).run();
}

}  // namespace uckpt::layout
