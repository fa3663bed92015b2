// universal_checkpoint_info of a target, version 0.4 with an affine map (DeepSpeed 0.19.8: module_inject's
// AutoTP writes the same, checkpoint/ds_to_universal.py reads it).
#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// Python's re.escape, anchored.
std::string pattern_of(const std::string& name) {
  std::string out = "^";
  for (const char c : name) {
    if (std::string_view("\\.^$*+?{}[]|()-&~# \t\n\r\v\f").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out + "$";
}

void write_piece(OutputPickle& file, const Shards& cut, const Shard& shard, const ShardBox& box,
                 const std::vector<int64_t>& locations) {
  const auto axes = cut.axes_of(box);
  std::vector<int64_t> shape, whole, part;
  int64_t weight = 1, from = 0;
  for (size_t i = axes.size(); i-- > 0;) {
    shape.insert(shape.begin(), axes[i].extent);
    whole.insert(whole.begin(), weight);
    part.insert(part.begin(), axes[i].stride);
    from += axes[i].start * weight;
    weight *= axes[i].size;
  }
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.key("shape");
  file.numbers(shape);
  file.place("source", from, whole);
  file.place("dest", box.offset, part);
  file.key("locations");
  file.numbers(locations);
  if (shard.factor != 1) file.key("scale"), out.real(shard.factor);
  out.end_dict();
}

void write_map(OutputPickle& file, const TargetCheckpoint& target, const JoinedParameter& p) {
  const Shards& cut = *target.book.cut();
  std::vector<int64_t> every_rank;
  for (size_t r = 0; r < p.shards.size(); ++r) every_rank.push_back(static_cast<int64_t>(r));
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.key("logical_shape");
  file.numbers(target.parameters.shape(*p.name));
  file.key("ranks");
  out.begin_dict();
  for (const int64_t r : every_rank) {
    const Shard* s = p.shards[static_cast<size_t>(r)];
    if (!s) continue;
    out.integer(r);
    out.begin_dict();
    file.key("shard_shape");
    file.numbers(s->shape);
    file.key("pieces");
    out.begin_list();
    for (const ShardBox& box : cut.boxes_of(*s))
      write_piece(file, cut, *s, box, p.is_replicated ? every_rank : std::vector<int64_t>{r});
    out.end_list();
    out.end_dict();
  }
  out.end_dict();
  out.end_dict();
}

template <class Is>
bool has_shard(const TargetCheckpoint& target, const Is& is) {
  const Shards* cut = target.is_universal ? nullptr : target.book.cut();
  return cut && std::any_of(cut->ranks.begin(), cut->ranks.end(), [&](const RankShards& rank) {
           return std::any_of(rank.shards.begin(), rank.shards.end(), is);
         });
}

bool has_padding(const TargetCheckpoint& target) {
  return has_shard(target, [](const Shard& s) { return s.is_padded; });
}

// Does the source's own description hold for the target? What rules of a spec alone say is not in it.
bool is_kept(const TargetCheckpoint& target, const Value& source) {
  const Catalog& catalog = target.parameters.catalog();
  if (!source || !source.is_dict() || !source.get("universal_checkpoint_info")) return false;
  if (catalog.mesh.tp != target.tp) return false;
  const bool is_own = catalog.naming.empty() || catalog.naming == "deepspeed";
  return is_own ||
         !has_shard(target, [](const Shard& s) { return s.is_padded || s.factor != 1 || s.summand != 0; });
}

}  // namespace

bool describes_itself(const TargetCheckpoint& target, const Value& source) {
  return target.tp > 1 || is_kept(target, source) || has_padding(target);
}

void write_universal_info(OutputPickle& file, const TargetCheckpoint& target, const Value& source) {
  pickle::Pickler& out = file.out();
  if (is_kept(target, source)) {
    const Value info = source.get("universal_checkpoint_info");
    const Value layers = info.is_dict() ? info.get("ds_autoep_layers") : Value();
    return out.copy(info, [&](const Value& value, pickle::Pickler&) {
      if (target.parameters.fused().empty() || !layers || value.id() != layers.id()) return false;
      write_fused_layers(file, target, layers);
      return true;
    });
  }
  const JoinedParameters& joined = joined_parameters(target);
  std::vector<std::string> replicated, padded;
  for (const JoinedParameter& p : joined.all) {
    if (p.is_replicated && !p.needs_map) replicated.push_back(pattern_of(p.name->name));
    if (p.is_padded) padded.push_back(pattern_of(p.name->name));
  }
  out.begin_dict();
  file.key("universal_checkpoint_version"), out.real(0.4);
  file.key("tp_replicated_parameter_patterns");
  file.names(replicated);
  if (joined.rows) {
    file.key("vocabulary_parameter_patterns");
    file.names(padded);
    file.entry("original_vocab_size", *joined.rows);
  }
  file.key("affine_map");
  out.begin_dict();
  file.entry("version", 1);
  file.key("params");
  out.begin_dict();
  for (const JoinedParameter& p : joined.all) {
    if (!p.needs_map) continue;
    out.text(pattern_of(p.name->name));
    write_map(file, target, p);
  }
  out.end_dict();
  out.end_dict();
  out.end_dict();
}

}  // namespace uckpt::deepspeed
