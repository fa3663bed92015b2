// The flat arrays of the distributed optimizer, cut into its parameters' states.
#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/megatron/flat_layout.h"
#include "lib/formats/megatron/rank_states.h"
#include "lib/formats/megatron/rounding.h"
#include "lib/formats/torch/sizes.h"

namespace uckpt::megatron {

namespace {

constexpr std::string_view kMasterKey = "param";

struct BufferOf {
  size_t chunk, buffer;  // the buffer's number in its chunk
};

class FlatStates {
 public:
  FlatStates(const RankFiles& files, const Parallelism& p, RankStates& out)
      : rank_(files.rank),
        model_(*files.model),
        optim_(*files.optim),
        p_(p),
        out_(out),
        shares_(model_, p, optim_.optimizers.size()),
        parameters_(model_.chunks.size()),
        tensors_(model_.chunks.size()) {
    for (size_t c = 0; c < model_.chunks.size(); ++c) collect(c);
  }

  void run() {
    for (size_t o = 0; o < optim_.optimizers.size(); ++o) {
      const FlatOptimizer& optimizer = optim_.optimizers[o];
      if (!optimizer) continue;
      const std::vector<BufferOf> buffers = buffers_of(o);
      if (buffers.size() != optimizer->size()) {
        throw refused(
            "megatron.optimizer_size",
            cat("optimizer ", o, ": expected ", buffers.size(), buffers.size() == 1 ? " buffer" : " buffers",
                " for the model's parameters, found ", optimizer->size()))
            .in_file(optim_.source.bytes()->name());
      }
      for (size_t b = 0; b < buffers.size(); ++b) add_buffer(buffers[b], (*optimizer)[b]);
    }
  }

 private:
  bool is_shared_embedding(size_t chunk, const ModelTensor& t) const {
    if (p_.pp < 2 || !model_.arguments.tied()) return false;
    const bool first = rank_.pp == 0 && chunk == 0,
               last = rank_.pp == p_.pp - 1 && chunk + 1 == model_.chunks.size();
    return (first && t.name.ends_with("word_embeddings.weight")) ||
           (last &&
            (t.name.ends_with("output_layer.weight") || t.name.ends_with("word_embeddings_for_head.weight")));
  }

  void collect(size_t chunk) {
    for (size_t i = 0; i < model_.chunks[chunk].size(); ++i) {
      const ModelTensor& t = model_.chunks[chunk][i];
      if (t.is_buffer) continue;
      GradParameter parameter;
      parameter.numel = numel_of(t.info.shape);
      parameter.dtype = t.info.dtype;
      parameter.is_expert = shares_.is_expert(t);
      parameter.is_shared_embedding = is_shared_embedding(chunk, t);
      parameters_[chunk].push_back(parameter);
      tensors_[chunk].push_back(i);
    }
  }

  std::vector<BufferOf> buffers_of(size_t optimizer) const {
    std::vector<BufferOf> out;
    for (size_t c = 0; c < parameters_.size(); ++c) {
      const std::vector<GradBuffer> layout = grad_buffers(parameters_[c], {});
      for (size_t b = 0; b < layout.size(); ++b) {
        const size_t any = layout[b].parameters.front().parameter;
        if (shares_.owner(c, model_.chunks[c][tensors_[c][any]]) == optimizer) out.push_back({c, b});
      }
    }
    return out;
  }

  int64_t data_parallel(bool is_expert) const {
    const int64_t own = is_expert ? p_.etp * p_.ep * p_.pp : p_.tp * p_.pp;
    return std::max<int64_t>(1, p_.world / own);
  }

  int64_t bucket_size(bool is_expert) const {
    if (const auto stated = model_.arguments.bucket_size()) return *stated;
    return default_bucket_size(data_parallel(is_expert));
  }

  void check_sizes(const FlatBuffer& found, const GradBuffer& layout) const {
    const auto fail = [&](std::string what) {
      return refused("megatron.optimizer_size", std::move(what)).in_file(optim_.source.bytes()->name());
    };
    if (found.states.empty()) throw fail("expected the optimizer's states of a buffer, found none");
    if (found.dtype && *found.dtype != layout.dtype) {
      throw fail(cat("expected states of parameters of type ", name_of(layout.dtype), ", found those of ",
                     name_of(*found.dtype)));
    }
    const auto& first = found.states.front().second;
    for (const auto& [name, arrays] : found.states) {
      for (size_t b = 0; b < arrays.size(); ++b) {
        if (arrays[b].numel == first[b].numel) continue;
        throw fail(cat("the array of ", escape(name, 60), ": expected ", first[b].numel, " elements as of ",
                       escape(found.states.front().first, 60), ", found ", arrays[b].numel));
      }
    }
    if (found.is_coalesced && found.numel_unpadded && *found.numel_unpadded != first.front().numel) {
      throw fail(cat("numel_unpadded: expected ", first.front().numel, " as the arrays have, found ",
                     *found.numel_unpadded));
    }
  }

  void add_buffer(const BufferOf& at, const FlatBuffer& found) {
    const GradBuffer plain = grad_buffers(parameters_[at.chunk], {})[at.buffer];
    check_sizes(found, plain);
    FlatQuestion question;
    question.parameters = &parameters_[at.chunk];
    question.buffer = at.buffer;
    question.found = &found;
    question.bucket_size = bucket_size(plain.is_expert);
    const bool overlaps = model_.arguments.overlap_grad_reduce();
    question.rule =
        bucket_rule(rank_.pp, static_cast<int64_t>(at.chunk), overlaps ? question.bucket_size : 0);
    const int64_t degree = data_parallel(plain.is_expert);
    question.most_padding = checked_mul(degree, kBusMultiple).value_or(INT64_MAX);
    std::optional<FlatPlaces> places = lay_out_by_rule(question);
    if (!places) places = by_weights(at.chunk, found, lay_out_by_size(question));
    if (!places) {
      int64_t elements = 0;
      for (const Place& a : found.states.front().second) elements += a.numel;
      throw refused("megatron.optimizer_size",
                    cat("the states of chunk ", at.chunk, " have ", elements, " elements: the ",
                        plain.parameters.size(), " parameters of the model take ", plain.numel_unpadded,
                        " in one bucket, and no size of buckets fits either",
                        elements < plain.numel_unpadded ? ", as where some are frozen"
                                                        : ": args.ddp_bucket_size may not be what was saved"))
          .in_file(optim_.source.bytes()->name());
    }
    add_states(at.chunk, found, *places);
  }

  // Of several layouts that fit, the one whose masters are those of the weights.
  std::optional<FlatPlaces> by_weights(size_t chunk, const FlatBuffer& found,
                                       std::vector<FlatPlaces> layouts) const {
    if (layouts.size() > 1)
      std::erase_if(layouts, [&](const FlatPlaces& places) { return !agrees(chunk, found, places); });
    if (layouts.size() > 1) {
      throw refused("megatron.optimizer_size",
                    cat("args does not say the size of gradient buckets, and ", layouts.size(),
                        " ways to cut the states into parameters fit their size"))
          .in_file(optim_.source.bytes()->name());
    }
    return layouts.empty() ? std::nullopt : std::optional(std::move(layouts.front()));
  }

  bool agrees(size_t chunk, const FlatBuffer& found, const FlatPlaces& places) const {
    constexpr int64_t kMost = 16;
    const auto master = std::ranges::find(found.states, kMasterKey, [](const auto& s) { return s.first; });
    if (master == found.states.end()) return true;
    for (const FlatPlace& p : places) {
      const torch::TensorInfo& weight = model_.chunks[chunk][tensors_[chunk][p.parameter]].info;
      const Place& array = master->second[p.array];
      const int64_t numel = std::min(kMost, weight.numel());
      if (!weight.refusal.empty() || !weight.contiguous() || weight.flags != kPlain || array.flags != kPlain)
        continue;
      const auto weights = sample(*model_.source.bytes(), weight.offset, weight.dtype, numel);
      const auto masters =
          sample(*optim_.source.bytes(), array.offset + p.start * item_size(array.dtype), array.dtype, numel);
      for (size_t i = 0; weights && masters && i < weights->size(); ++i)
        if (!is_rounding((*weights)[i], (*masters)[i], weight.dtype)) return false;
    }
    return true;
  }

  void add_states(size_t chunk, const FlatBuffer& found, const FlatPlaces& places) {
    for (const FlatPlace& p : places) {
      const size_t i = tensors_[chunk][p.parameter];
      ParameterStates& states = out_[chunk][i];
      states.is_trained = true;
      for (const auto& [name, arrays] : found.states) {
        const Place& array = arrays[p.array];
        torch::TensorInfo info;
        info.dtype = array.dtype;
        info.shape = model_.chunks[chunk][i].info.shape;
        info.stride = torch::row_major(info.shape);
        info.offset = array.offset + p.start * item_size(array.dtype);
        info.record = array.record;
        info.flags = array.flags;
        states.tensors.push_back(
            {name == kMasterKey ? std::string(state::kMaster) : name, std::move(info), &optim_.source});
      }
    }
  }

  const Rank rank_;
  ModelFile& model_;
  OptimFile& optim_;
  const Parallelism& p_;
  RankStates& out_;
  const OptimizerShares shares_;
  std::vector<std::vector<GradParameter>> parameters_;  // of each chunk
  std::vector<std::vector<size_t>> tensors_;            // which of the chunk's tensors they are
};

}  // namespace

void add_flat_states(const RankFiles& files, const Parallelism& p, RankStates& out) {
  FlatStates(files, p, out).run();
}

}  // namespace uckpt::megatron
