// What a legacy checkpoint says of itself to people.
#include <algorithm>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/megatron/legacy_catalog.h"

namespace uckpt::megatron {

namespace {

// Numbers of layers under each stack: "decoder" for "decoder.layers.3.mlp…".
using Stacks = std::map<std::string, std::set<std::string>, std::less<>>;

Stacks stacks_of(const Chunk& chunk) {
  constexpr std::string_view kLayers = ".layers.";
  Stacks out;
  for (const ModelTensor& t : chunk) {
    const size_t at = t.name.find(kLayers);
    if (at == t.name.npos) continue;
    const size_t begin = at + kLayers.size();
    const size_t end = std::min(t.name.find('.', begin), t.name.size());
    const std::string number = t.name.substr(begin, end - begin);
    const bool is_number =
        !number.empty() && std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; });
    if (is_number) out[t.name.substr(0, at)].insert(number);
  }
  return out;
}

std::string stages_text(const std::vector<int64_t>& layers, int64_t stages, int64_t chunks) {
  std::string out;
  for (int64_t s = 0; s < stages; ++s) {
    if (s) out += ", ";
    for (int64_t c = 0; c < chunks; ++c) {
      const auto i = static_cast<size_t>(s * chunks + c);
      out += cat(c ? "+" : "", i < layers.size() && layers[i] >= 0 ? cat(layers[i]) : "?");
    }
  }
  return cat(out, " layers");
}

std::string optimizer_form(const LegacyCheckpoint& c) {
  const ModelFile& model = *c.first().model;
  const bool flat = std::ranges::any_of(c.ranks, [](const LoadedRank& r) { return r.optim.has_value(); });
  if (flat) {
    size_t count = 1;
    bool coalesced = true;
    for (const LoadedRank& r : c.ranks) {
      if (!r.optim) continue;
      count = std::max(count, r.optim->optimizers.size());
      for (const FlatOptimizer& o : r.optim->optimizers)
        for (size_t b = 0; o && b < o->size(); ++b) coalesced &= (*o)[b].is_coalesced;
    }
    return cat("distributed", coalesced ? "" : ", an array for each bucket",
               count > 1 ? cat(", ", count, " optimizers") : "");
  }
  if (!model.has_optimizer) return "none";
  const bool masters =
      std::ranges::any_of(model.optimizers, [](const OptimizerEntry& e) { return e.has_masters; });
  return masters ? "mixed precision, not distributed" : "not distributed";
}

}  // namespace

std::vector<int64_t> count_layers(LegacyCheckpoint& checkpoint) {
  const Parallelism& p = checkpoint.parallelism;
  const auto chunks = static_cast<size_t>(p.vp);
  std::vector<int64_t> out(static_cast<size_t>(p.pp) * chunks, -1);
  std::map<std::string, int64_t, std::less<>> totals;
  for (const LoadedRank& rank : checkpoint.ranks) {
    for (size_t c = 0; rank.model && c < std::min(chunks, rank.model->chunks.size()); ++c) {
      int64_t& count = out[static_cast<size_t>(rank.rank.pp) * chunks + c];
      if (count >= 0) continue;  // the other tensor parallel ranks repeat it
      count = 0;
      for (const auto& [stack, numbers] : stacks_of(rank.model->chunks[c])) {
        totals[stack] += static_cast<int64_t>(numbers.size());
        count = std::max(count, static_cast<int64_t>(numbers.size()));
      }
    }
  }
  const ModelFile& reference = *checkpoint.first().model;
  const auto stated = reference.arguments.number("num_layers");
  const bool complete = std::ranges::find(out, -1) == out.end();
  const bool fits = !stated || totals.empty() ||
                    std::ranges::any_of(totals, [&](const auto& t) { return t.second == *stated; });
  if (complete && !fits) {
    const auto most = std::ranges::max_element(totals, {}, [](const auto& t) { return t.second; });
    checkpoint.problems.push_back(
        refused("megatron.layers", cat("args.num_layers is ", *stated, ", found ", most->second,
                                       " layers in the files: ", stages_text(out, p.pp, p.vp)))
            .in_file(checkpoint.folder.files.path()));
  }
  return out;
}

void add_facts(const LegacyCheckpoint& checkpoint, const std::vector<int64_t>& layers, Catalog& catalog) {
  const ModelFile& model = *checkpoint.first().model;
  const Parallelism& p = checkpoint.parallelism;
  const auto fact = [&](std::string_view key, std::string value) {
    if (!value.empty()) catalog.facts.emplace_back(std::string(key), std::move(value));
  };
  static constexpr std::pair<std::string_view, std::string_view> kSizes[] = {
      {"num_layers", "layers"},
      {"hidden_size", "hidden size"},
      {"ffn_hidden_size", "feed-forward size"},
      {"num_attention_heads", "attention heads"},
      {"num_query_groups", "query groups"},
      {"num_experts", "experts"},
      {"padded_vocab_size", "padded vocabulary"},
      {"vocab_size", "vocabulary"}};
  fact("folder", checkpoint.folder.name);
  if (model.version) fact("checkpoint_version", cat(*model.version));
  for (const auto& [key, label] : kSizes)
    if (const auto n = model.arguments.number(key)) fact(label, cat(*n));
  if (!model.arguments.empty()) fact("tied embeddings", model.arguments.tied() ? "yes" : "no");
  if (const auto impl = model.arguments.text("transformer_impl"))
    fact("transformer_impl", std::string(*impl));
  fact("stages", stages_text(layers, p.pp, p.vp));
  fact("optimizer", optimizer_form(checkpoint));
  for (const auto& [key, value] : model.numbers) fact(key, value);
  catalog.mesh = p.mesh();
}

}  // namespace uckpt::megatron
