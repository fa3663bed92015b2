#include "lib/formats/deepspeed/universal_info.h"

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

Error malformed(std::string_view what) {
  return refused("deepspeed.malformed", cat("in universal_checkpoint_info: expected ", what));
}

std::vector<std::string> texts_of(const Value& list) {
  std::vector<std::string> out;
  for (size_t i = 0; list && list.is_sequence() && i < list.size(); ++i) {
    const auto text = list.at(i).text();
    if (!text) throw malformed("patterns that are text");
    out.emplace_back(*text);
  }
  return out;
}

std::vector<int64_t> integers_of(const Value& list, std::string_view what) {
  std::vector<int64_t> out;
  if (!list || !list.is_sequence()) throw malformed(what);
  for (size_t i = 0; i < list.size(); ++i) {
    const auto n = list.at(i).integer();
    if (!n || *n < 0) throw malformed(what);
    out.push_back(*n);
  }
  return out;
}

SubParams read_sub_params(const Value& entry) {
  if (!entry.is_dict() && !entry.attribute("patterns")) throw malformed("dicts in parameter_with_sub_params");
  const auto part = [&](std::string_view key) {
    return entry.is_dict() ? entry.get(key) : entry.attribute(key);
  };
  SubParams out;
  out.patterns = texts_of(part("patterns"));
  const auto dim = part("partition_dim").integer();
  const Value shape = part("shape");
  if (!dim || *dim < 0 || !shape || !shape.is_sequence() || static_cast<size_t>(*dim) >= shape.size())
    throw malformed("a partition_dim within the shape of sub-parameters");
  out.dim = static_cast<size_t>(*dim);
  const Value sizes = shape.at(out.dim);
  if (const auto count = sizes.integer()) {
    if (*count < 1 || *count > 1024) throw malformed("1 to 1,024 sub-parameters");
    out.equal = *count;
  } else {
    out.sizes = integers_of(sizes, "sizes of sub-parameters");
  }
  return out;
}

// [offset, [strides]]
void read_place(const Value& place, size_t rank, int64_t& offset, Shape& strides) {
  if (!place || !place.is_sequence() || place.size() != 2 || !place.at(0).integer())
    throw malformed("an offset and strides in an affine map");
  offset = *place.at(0).integer();
  strides = integers_of(place.at(1), "strides in an affine map");
  if (offset < 0 || strides.size() != rank) throw malformed("as many strides as dims in an affine map");
}

AffineMap read_affine_map(std::string_view pattern, const Value& map) {
  AffineMap out{std::string(pattern), {}, {}};
  if (!map.is_dict()) throw malformed("dicts of affine maps");
  out.whole = read_shape(map.get("logical_shape"));
  const Value ranks = map.get("ranks");
  for (size_t i = 0; ranks && ranks.is_dict() && i < ranks.size(); ++i) {
    const auto [key, value] = ranks.entry(i);
    const auto rank = key.integer();
    const Value pieces = value.is_dict() ? value.get("pieces") : Value();
    if (!rank || !pieces || !pieces.is_sequence()) throw malformed("pieces of each rank in an affine map");
    auto& list = out.ranks[*rank];
    for (size_t p = 0; p < pieces.size(); ++p) {
      const Value piece = pieces.at(p);
      if (!piece.is_dict()) throw malformed("dicts as pieces of an affine map");
      AffinePiece made;
      made.shape = read_shape(piece.get("shape"));
      read_place(piece.get("source"), made.shape.size(), made.whole_offset, made.whole_strides);
      read_place(piece.get("dest"), made.shape.size(), made.shard_offset, made.shard_strides);
      if (const Value scale = piece.get("scale"); scale && !scale.is_none()) {
        const auto number = scale.number();
        if (!number || *number == 0) throw malformed("a scale that is a number in an affine map");
        made.scale = *number;
      }
      list.push_back(std::move(made));
    }
  }
  return out;
}

}  // namespace

UniversalInfo read_universal_info(const Value& info) {
  UniversalInfo out;
  out.version = info.get("universal_checkpoint_version").number().value_or(0);
  out.vocabulary = texts_of(info.get("vocabulary_parameter_patterns"));
  out.replicated = texts_of(info.get("tp_replicated_parameter_patterns"));
  out.averaged = texts_of(info.get("parameter_to_average_patterns"));
  out.row_parallel = texts_of(info.get("parameter_with_row_parallelism_patterns"));
  out.two_sub_params = texts_of(info.get("parameter_with_2_sub_params_cat_dim_0"));
  out.original_vocabulary = info.get("original_vocab_size").integer();
  const Value subs = info.get("parameter_with_sub_params");
  for (size_t i = 0; subs && subs.is_sequence() && i < subs.size(); ++i)
    out.sub_params.push_back(read_sub_params(subs.at(i)));
  const Value widths = info.get("sub_param_shard_widths");
  for (size_t i = 0; widths && widths.is_dict() && i < widths.size(); ++i) {
    const auto [key, value] = widths.entry(i);
    if (!key.text() || !value.is_sequence()) throw malformed("widths of each sub-parameter's shards");
    auto& list = out.shard_widths[std::string(*key.text())];
    for (size_t s = 0; s < value.size(); ++s)
      list.push_back(integers_of(value.at(s), "widths of each sub-parameter's shards"));
  }
  const Value affine = info.get("affine_map");
  const Value params = affine && affine.is_dict() ? affine.get("params") : Value();
  for (size_t i = 0; params && params.is_dict() && i < params.size(); ++i) {
    const auto [key, value] = params.entry(i);
    if (!key.text()) throw malformed("patterns that are text");
    out.affine.push_back(read_affine_map(*key.text(), value));
  }
  const Value unsupported = info.get("autotp_unsupported_parameter_patterns");
  for (size_t i = 0; unsupported && unsupported.is_dict() && i < unsupported.size(); ++i) {
    const auto [key, value] = unsupported.entry(i);
    out.unsupported.push_back(cat(key.text().value_or("?"), ": ", value.text().value_or("no reason given")));
  }
  return out;
}

}  // namespace uckpt::deepspeed
