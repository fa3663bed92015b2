#include "lib/layout/joining.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"
#include "lib/layout/copies.h"
#include "lib/layout/placing.h"

namespace uckpt::layout {

namespace {

using Fragments = std::vector<const Fragment*>;

class Joiner {
 public:
  Joiner(Catalog& catalog, const Joining& joining, Tensor& tensor)
      : catalog_(catalog), joining_(joining), tensor_(tensor), numel_(numel_of(tensor.shape)) {}

  void run(const Parts& parts) {
    std::map<int64_t, Fragments> wholes;
    for (const Fragment& f : parts.fragments) wholes[joining_.averaged ? joining_.whole(f) : 0].push_back(&f);
    for (const auto& [number, fragments] : wholes) add_whole(fragments);
    if (!joining_.averaged) add_own_copies(wholes.begin()->second);
  }

 private:
  void add_whole(const Fragments& fragments) {
    std::vector<View> views;
    for (const Fragment* f : fragments) views.push_back(joining_.view(*f));
    const std::vector<Split> splits = split_copies(std::move(views));
    const uint32_t mark = catalog_.piece_mark();
    for (size_t i = 0; i < splits.size(); ++i)
      place_pieces(catalog_, fragments[i]->tensor->pieces, splits[i].fresh, numel_, item_size(tensor_.dtype));
    const PieceRange all = catalog_.pieces_since(mark);
    if (has_first_) return tensor_.averaged_with.push_back(all);
    has_first_ = true;
    tensor_.pieces = all;
    // Further wholes differ by nature: only the first one's copies can be compared with it.
    for (size_t i = 0; i < splits.size(); ++i) {
      if (!splits[i].again.strands.empty() && !is_given_before(fragments, i))
        add_copy(catalog_, tensor_, *fragments[i], splits[i].again,
                 cat(joining_.again, text_of(fragments[i]->set->at)));
    }
  }

  // The reader gave ranks the same bytes, which its files have once: they need no comparing.
  static bool is_given_before(const Fragments& fragments, size_t i) {
    const PieceRange& own = fragments[i]->tensor->pieces;
    return std::any_of(fragments.begin(), fragments.begin() + static_cast<ptrdiff_t>(i),
                       [&](const Fragment* f) {
                         const PieceRange& other = f->tensor->pieces;
                         return other.first == own.first && other.count == own.count;
                       });
  }

  void add_own_copies(Fragments fragments) {
    std::erase_if(fragments, [](const Fragment* f) { return numel_of(f->tensor->shape) == 0; });
    if (fragments.empty()) return;
    const auto& firsts = fragments.front()->tensor->copies;
    for (size_t c = 0; c < firsts.size(); ++c) {
      const Copy& first = firsts[c];
      const bool everywhere = std::all_of(fragments.begin(), fragments.end(), [&](const Fragment* f) {
        const auto& own = f->tensor->copies;
        return c < own.size() && own[c].dtype == first.dtype && own[c].is_module == first.is_module;
      });
      if (!everywhere || item_size(first.dtype) == 0) continue;
      std::vector<View> views;
      for (const Fragment* f : fragments) views.push_back(joining_.view(*f));
      const std::vector<Split> splits = split_copies(std::move(views));
      const uint32_t mark = catalog_.piece_mark();
      for (size_t i = 0; i < splits.size(); ++i)
        place_pieces(catalog_, fragments[i]->tensor->copies[c].pieces, splits[i].fresh, numel_,
                     item_size(first.dtype));
      tensor_.copies.push_back({catalog_.pieces_since(mark), first.dtype, first.is_module, first.what});
      for (size_t i = 0; i < splits.size(); ++i)
        if (!splits[i].again.strands.empty()) add_replica(*fragments[i], c, splits[i].again);
    }
  }

  // What a further rank has of a copy that is there already.
  void add_replica(const Fragment& f, size_t c, const View& again) {
    const Copy& own = f.tensor->copies[c];
    const uint32_t mark = catalog_.piece_mark();
    place_pieces(catalog_, own.pieces, again, numel_, item_size(own.dtype));
    tensor_.copies.push_back({catalog_.pieces_since(mark), own.dtype, own.is_module,
                              cat(own.what, " on rank ", text_of(f.set->at)), own.is_module});
  }

  Catalog& catalog_;
  const Joining& joining_;
  Tensor& tensor_;
  const int64_t numel_;
  bool has_first_ = false;
};

}  // namespace

Tensor join(Catalog& catalog, const Parts& parts, const Joining& joining) {
  const Tensor& first = *parts.fragments.front().tensor;
  Tensor t;
  t.name = parts.name;
  t.state = parts.state;
  t.dtype = first.dtype;
  t.shape = joining.shape;
  t.module_dtype = first.module_dtype;
  t.layout = cat(parts.fragments.size(), parts.fragments.size() == 1 ? " rank, " : " ranks, ", joining.how,
                 "; each ", first.layout);
  for (const Fragment& f : parts.fragments)
    if (t.refusal.empty()) t.refusal = f.tensor->refusal;
  if (t.refusal.empty() && numel_of(t.shape) == INT64_MAX) t.refusal = "it is larger than any file";
  const bool under_a_byte = item_size(t.dtype) == 0;
  if (t.refusal.empty() && under_a_byte && parts.fragments.size() > 1)
    t.refusal = cat("a tensor of type ", name_of(t.dtype), " lies on several ranks");
  if (!t.refusal.empty()) return t;
  if (under_a_byte) {
    t.pieces = first.pieces;
  } else {
    Joiner(catalog, joining, t).run(parts);
  }
  return t;
}

void add_copy(Catalog& catalog, Tensor& tensor, const Fragment& fragment, const View& view,
              std::string what) {
  const uint32_t mark = catalog.piece_mark();
  place_pieces(catalog, fragment.tensor->pieces, view, numel_of(tensor.shape), item_size(tensor.dtype));
  tensor.copies.push_back({catalog.pieces_since(mark), tensor.dtype, false, std::move(what)});
}

bool has_arithmetic(DType dtype) {
  return dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32 || dtype == DType::kF64;
}

}  // namespace uckpt::layout
