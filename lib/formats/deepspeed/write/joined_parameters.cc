// How a target's tensor parallel fragments are joined, in the words of universal_checkpoint_info.
//
// An affine map of DeepSpeed 0.19.8 has a piece for each element of a fragment (ParamAffineMap.validate), so
// it has no place for padding. ds_to_universal joins what has no map by its rows, and of the vocabulary's
// patterns keeps the first `original_vocab_size` rows: one number for all of them, and only of tensors with
// two dims or more.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

Error in_target(const TargetCheckpoint& target, const Named& n, Error e) {
  e.in_file(target.parameters.catalog().path).in_tensor(n.name);
  return e;
}

Error padding_error(const TargetCheckpoint& target, const Named& n, std::string found) {
  return in_target(
             target, n,
             refused("deepspeed.padding",
                     cat("universal_checkpoint_info cannot tell its padding: expected it behind the last "
                         "rows of a matrix that is cut by rows or not at all, found ",
                         found)))
      .hint("in a --spec, a rule for it without `pad` will do, or one that pads its rows alone");
}

// Of each tensor, by rank.
std::unordered_map<uint32_t, std::vector<const Shard*>> shards_by_tensor(const Shards& cut) {
  std::unordered_map<uint32_t, std::vector<const Shard*>> out;
  for (size_t r = 0; r < cut.ranks.size(); ++r) {
    for (const Shard& s : cut.ranks[r].shards) {
      if (s.is_number) continue;
      std::vector<const Shard*>& of_tensor = out[s.tensor];
      of_tensor.resize(cut.ranks.size());
      if (!of_tensor[r]) of_tensor[r] = &s;
    }
  }
  return out;
}

// Is the box as it lies in the whole tensor, `begin` elements further on?
bool is_shifted(const Shards& cut, const ShardBox& box, int64_t begin, int64_t& volume) {
  int64_t weight = 1, from = 0;
  volume = 1;
  const auto axes = cut.axes_of(box);
  for (size_t i = axes.size(); i-- > 0;) {
    if (axes[i].extent > 1 && axes[i].stride != weight) return false;
    from += axes[i].start * weight;
    volume *= axes[i].extent;
    weight *= axes[i].size;
  }
  return from == begin + box.offset;
}

// Has the fragment the elements of the whole from `begin` on, and then padding alone?
bool is_run(const Shards& cut, const Shard& shard, int64_t begin, int64_t numel) {
  int64_t held = 0;
  for (const ShardBox& box : cut.boxes_of(shard)) {
    int64_t volume = 0;
    if (!is_shifted(cut, box, begin, volume)) return false;
    held += volume;
  }
  return held == std::clamp(numel - begin, int64_t{0}, numel_of(shard.shape));
}

// Every rank has all of it, as it lies.
bool is_replicated(const Shards& cut, const JoinedParameter& p, const Shape& whole) {
  return std::all_of(p.shards.begin(), p.shards.end(), [&](const Shard* s) {
    return s && s->shape == p.shards.front()->shape && s->shape.size() == whole.size() &&
           is_run(cut, *s, 0, numel_of(whole)) && numel_of(s->shape) >= numel_of(whole);
  });
}

// The ranks' rows follow one another.
bool is_cut_by_rows(const Shards& cut, const JoinedParameter& p, const Shape& whole) {
  int64_t begin = 0;
  for (const Shard* s : p.shards) {
    if (!s) continue;
    if (s->shape.size() != whole.size() ||
        !std::equal(whole.begin() + 1, whole.end(), s->shape.begin() + 1) ||
        !is_run(cut, *s, begin, numel_of(whole)))
      return false;
    begin += numel_of(s->shape);
  }
  return begin >= numel_of(whole);
}

JoinedParameter join(const TargetCheckpoint& target, const Named& n, std::vector<const Shard*> shards) {
  const Shards& cut = *target.book.cut();
  const Shape& whole = target.parameters.shape(n);
  JoinedParameter p{.name = &n, .shards = std::move(shards)};
  double factor = 1;
  for (const Shard* s : p.shards) {
    if (!s) continue;
    p.is_padded |= s->is_padded;
    factor = s->factor;
    if (s->summand != 0)
      throw in_target(target, n,
                      refused("deepspeed.summand", cat("its rule has ranks hold it plus ", s->summand,
                                                       ", which universal_checkpoint_info cannot tell")))
          .hint("a rule without `+` in a --spec, or --to deepspeed-universal, will do");
  }
  p.is_replicated = is_replicated(cut, p, whole);
  p.needs_map = factor != 1 || (!p.is_replicated && !p.is_padded);
  if (!p.is_padded) return p;
  if (factor != 1) throw padding_error(target, n, cat("one that ranks hold times ", factor));
  if (whole.size() < 2) throw padding_error(target, n, cat("the shape ", shape_text(whole)));
  if (!p.is_replicated && !is_cut_by_rows(cut, p, whole)) throw padding_error(target, n, "another cut");
  return p;
}

// Their bytes are those that the program holds, which DeepSpeed's converter does not undo.
void note_scaled(const TargetCheckpoint& target, const JoinedParameters& joined) {
  const auto count = std::count_if(joined.all.begin(), joined.all.end(), [](const JoinedParameter& p) {
    return std::any_of(p.shards.begin(), p.shards.end(), [](const Shard* s) { return s && s->factor != 1; });
  });
  if (count == 0) return;
  target.notes.push_back(cat(
      count, count == 1 ? " parameter is" : " parameters are",
      " held times a factor, as the rules say: DeepSpeed's ds_to_universal refuses the moments of such ones, "
      "--to deepspeed-universal writes them"));
}

}  // namespace

const JoinedParameters& joined_parameters(const TargetCheckpoint& target) {
  if (target.joined) return *target.joined;
  JoinedParameters out;
  const Shards& cut = *target.book.cut();
  auto shards = shards_by_tensor(cut);
  for (const Named& n : target.parameters.all()) {
    if (!n.is_trained()) continue;
    std::vector<const Shard*>& own = shards[n.weight()];
    own.resize(cut.ranks.size());
    const JoinedParameter& p = out.all.emplace_back(join(target, n, own));
    if (!p.is_padded) continue;
    const int64_t rows = target.parameters.shape(n).front();
    if (out.rows && *out.rows != rows)
      throw padding_error(target, n, cat(rows, " rows, and ", *out.rows, " of others that are padded"));
    out.rows = rows;
  }
  note_scaled(target, out);
  return target.joined.emplace(std::move(out));
}

}  // namespace uckpt::deepspeed
