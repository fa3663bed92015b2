// universal_checkpoint_info of a target, version 0.4 with an affine map (DeepSpeed 0.19.8: module_inject's
// AutoTP writes the same, checkpoint/ds_to_universal.py reads it).
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

void write_numbers(pickle::Pickler& out, const std::vector<int64_t>& numbers) {
  out.begin_list();
  for (const int64_t n : numbers) out.integer(n);
  out.end_list();
}

// [offset, strides], in elements.
void write_place(OutputPickle& file, std::string_view key, int64_t offset,
                 const std::vector<int64_t>& strides) {
  file.key(key);
  file.out().begin_list();
  file.out().integer(offset);
  write_numbers(file.out(), strides);
  file.out().end_list();
}

void write_piece(OutputPickle& file, const Shards& cut, const Shard& shard, const ShardBox& box,
                 int64_t rank) {
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
  write_numbers(out, shape);
  write_place(file, "source", from, whole);
  write_place(file, "dest", box.offset, part);
  file.key("locations");
  write_numbers(out, {rank});
  if (shard.factor != 1) file.key("scale"), out.real(shard.factor);
  out.end_dict();
}

void write_map(OutputPickle& file, const TargetCheckpoint& target, const Named& n) {
  const Shards& cut = *target.book.cut();
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.key("logical_shape");
  write_numbers(out, target.parameters.shape(n));
  file.key("ranks");
  out.begin_dict();
  for (size_t r = 0; r < cut.ranks.size(); ++r) {
    for (const Shard& s : cut.ranks[r].shards) {
      if (s.tensor != n.weight()) continue;
      out.integer(static_cast<int64_t>(r));
      out.begin_dict();
      file.key("shard_shape");
      write_numbers(out, s.shape);
      file.key("pieces");
      out.begin_list();
      for (const ShardBox& box : cut.boxes_of(s)) write_piece(file, cut, s, box, static_cast<int64_t>(r));
      out.end_list();
      out.end_dict();
      break;
    }
  }
  out.end_dict();
  out.end_dict();
}

// Is the parameter the same on every rank, and all of it?
bool is_replicated(const TargetCheckpoint& target, const Named& n) {
  const Shards& cut = *target.book.cut();
  for (const RankShards& rank : cut.ranks) {
    bool is_whole = false;
    for (const Shard& s : rank.shards)
      is_whole |= s.tensor == n.weight() && s.shape == target.parameters.shape(n) && s.boxes.count == 1;
    if (!is_whole) return false;
  }
  return true;
}

}  // namespace

bool describes_itself(const TargetCheckpoint& target, const Value& source) {
  const bool is_known = source && source.is_dict() && source.get("universal_checkpoint_info");
  return target.tp > 1 || (is_known && target.parameters.catalog().mesh.tp == target.tp);
}

void write_universal_info(OutputPickle& file, const TargetCheckpoint& target, const Value& source) {
  pickle::Pickler& out = file.out();
  const Value known = source && source.is_dict() ? source.get("universal_checkpoint_info") : Value();
  if (known && target.parameters.catalog().mesh.tp == target.tp) return out.copy(known);
  std::vector<std::string> replicated;
  std::vector<const Named*> cut;
  for (const Named& n : target.parameters.all()) {
    if (!n.is_trained()) continue;
    if (is_replicated(target, n)) {
      replicated.push_back(pattern_of(n.name));
    } else {
      cut.push_back(&n);
    }
  }
  out.begin_dict();
  file.key("universal_checkpoint_version"), out.real(0.4);
  file.key("tp_replicated_parameter_patterns");
  file.names(replicated);
  file.key("affine_map");
  out.begin_dict();
  file.entry("version", 1);
  file.key("params");
  out.begin_dict();
  for (const Named* n : cut) {
    out.text(pattern_of(n->name));
    write_map(file, target, *n);
  }
  out.end_dict();
  out.end_dict();
  out.end_dict();
}

}  // namespace uckpt::deepspeed
