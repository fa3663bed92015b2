#include "lib/formats/megatron/legacy_catalog.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/torch/guards.h"

namespace uckpt::megatron {

namespace {

class RankSets {
 public:
  RankSets(LegacyCheckpoint& checkpoint, bool allow_expand, Catalog& catalog)
      : checkpoint_(checkpoint), allow_expand_(allow_expand), catalog_(catalog) {}

  void run() {
    find_owners();
    for (LoadedRank& rank : checkpoint_.ranks) {
      if (!rank.model) continue;
      for (size_t c = 0; c < rank.model->chunks.size(); ++c) add_chunk(rank, c);
    }
  }

 private:
  using Stage = std::pair<int64_t, int64_t>;  // tp, pp

  static bool is_dense(const ModelTensor& t) { return !t.is_buffer && !t.is_expert; }

  // Of the ranks that share dense parameters, the one whose files have their states.
  void find_owners() {
    for (LoadedRank& rank : checkpoint_.ranks) {
      for (size_t c = 0; rank.model && c < rank.states.size(); ++c) {
        for (size_t t = 0; t < rank.states[c].size(); ++t) {
          if (!rank.states[c][t].is_trained) continue;
          if (is_dense(rank.model->chunks[c][t])) owners_.emplace(Stage{rank.rank.tp, rank.rank.pp}, &rank);
        }
      }
    }
  }

  const ParameterStates* states_of(LoadedRank& rank, size_t chunk, size_t i) {
    const ModelTensor& t = rank.model->chunks[chunk][i];
    ParameterStates& own = rank.states[chunk][i];
    if (t.is_buffer || own.is_trained) return &own;
    const auto owner = owners_.find({rank.rank.tp, rank.rank.pp});
    if (owner == owners_.end() || owner->second == &rank) return nullptr;
    const LoadedRank& other = *owner->second;
    if (chunk >= other.model->chunks.size()) return nullptr;
    const Chunk& list = other.model->chunks[chunk];
    const auto at = std::ranges::find(list, t.name, &ModelTensor::name);
    if (at == list.end() || at->info.shape != t.info.shape || at->is_expert || t.is_expert) return nullptr;
    const ParameterStates& states = other.states[chunk][static_cast<size_t>(at - list.begin())];
    return states.is_trained ? &states : nullptr;
  }

  // The states that a file should have and does not.
  void note_missing(const LoadedRank& rank, const ModelTensor& t) {
    const bool is_distributed = std::ranges::none_of(
        rank.model->optimizers, [](const OptimizerEntry& entry) { return entry.is_plain(); });
    if (!rank.model->has_optimizer || !is_distributed) return;
    const std::string file = cat(missing_place(rank, t), "/", kOptimFile);
    auto& missing = checkpoint_.missing;
    if (checkpoint_.folder.files.has_file(file)) return;  // what is wrong with it is said already
    if (std::ranges::find(missing, file) == missing.end()) missing.push_back(file);
  }

  std::string missing_place(const LoadedRank& rank, const ModelTensor& t) const {
    if (t.is_expert) return rank.name;
    for (const LoadedRank& other : checkpoint_.ranks)
      if (other.rank.tp == rank.rank.tp && other.rank.pp == rank.rank.pp && other.rank.is_dense_owner)
        return other.name;
    return rank.name;
  }

  void add_chunk(LoadedRank& rank, size_t c) {
    RankSet set;
    set.at = {{"tp", rank.rank.tp},
              {"pp", rank.rank.pp},
              {"vp", static_cast<int64_t>(c)},
              {"ep", rank.rank.ep},
              {"etp", rank.rank.etp}};
    for (size_t t = 0; t < rank.model->chunks[c].size(); ++t) add_parameter(rank, c, t, set);
    catalog_.ranks.push_back(std::move(set));
  }

  void add_parameter(LoadedRank& rank, size_t c, size_t i, RankSet& set) {
    const ModelTensor& t = rank.model->chunks[c][i];
    const ParameterStates* states = states_of(rank, c, i);
    if (!states) note_missing(rank, t);
    const size_t first = set.tensors.size();
    bool has_master = false;
    for (size_t s = 0; states && s < states->tensors.size(); ++s) {
      const StateTensor& state = states->tensors[s];
      set.tensors.push_back(made(t.name, state.name, state.info, *state.source));
      has_master |= state.name == state::kMaster;
    }
    if (has_master) {
      const auto master = std::find_if(set.tensors.begin() + static_cast<ptrdiff_t>(first), set.tensors.end(),
                                       [](const Tensor& m) { return m.state == state::kMaster; });
      add_module_copy(t, rank.model->source, *master);
    } else {
      const bool is_master = states && states->is_trained && t.info.dtype == DType::kF32;
      const std::string_view state = t.is_buffer ? state::kBuffer
                                     : is_master ? state::kMaster
                                                 : state::kParam;
      set.tensors.insert(set.tensors.begin() + static_cast<ptrdiff_t>(first),
                         made(t.name, std::string(state), t.info, rank.model->source));
    }
    for (size_t s = 0; states && s < states->numbers.size(); ++s)
      add_number(t.name, states->numbers[s].first, states->numbers[s].second, set);
  }

  std::string refusal_of(const torch::TensorInfo& info) const {
    return info.refusal.empty() ? torch::expansion_refusal(info, allow_expand_) : info.refusal;
  }

  Tensor made(const std::string& name, std::string state, const torch::TensorInfo& info, Source& source) {
    Tensor out;
    out.name = name;
    out.state = std::move(state);
    out.dtype = info.dtype;
    out.shape = info.shape;
    out.refusal = refusal_of(info);
    out.layout = "whole";
    if (out.refusal.empty()) out.pieces = pieces_of(info, source);
    return out;
  }

  // Ranks that share states have the same pieces.
  PieceRange pieces_of(const torch::TensorInfo& info, Source& source) {
    if (info.numel() == 0) return {catalog_.piece_mark(), 0};
    const FileId file = source.file_id(catalog_);
    const auto [known, fresh] = known_.try_emplace({file, info.offset, info.dtype, info.shape, info.stride});
    if (!fresh) return known->second;
    const uint32_t mark = catalog_.piece_mark();
    if (info.contiguous()) {
      catalog_.add_flat(file, source.record_id(info.record), info.offset, info.numel(), 0, info.numel(),
                        info.flags);
    } else {
      catalog_.add_whole(file, source.record_id(info.record), info.offset, info.shape, info.stride,
                         info.flags);
    }
    return known->second = catalog_.pieces_since(mark);
  }

  void add_module_copy(const ModelTensor& t, Source& source, Tensor& master) {
    if (std::string why = refusal_of(t.info); !why.empty()) {
      if (master.refusal.empty()) master.refusal = std::move(why);
      return;
    }
    master.copies.push_back({pieces_of(t.info, source), t.info.dtype, true, "module weight"});
  }

  void add_number(const std::string& name, const std::string& state, const Scalar& value, RankSet& set) {
    Tensor out;
    out.name = name;
    out.state = state;
    out.dtype = value.dtype;
    out.shape = value.shape;
    out.layout = "one number";
    if (!number_ || number_->first != value) {
      const uint32_t mark = catalog_.piece_mark();
      catalog_.add_literal(value.span(), 1);
      number_ = {value, catalog_.pieces_since(mark)};
    }
    out.pieces = number_->second;
    set.tensors.push_back(std::move(out));
  }

  LegacyCheckpoint& checkpoint_;
  const bool allow_expand_;
  Catalog& catalog_;
  std::map<Stage, LoadedRank*> owners_;
  std::map<std::tuple<FileId, int64_t, DType, Shape, Shape>, PieceRange> known_;
  std::optional<std::pair<Scalar, PieceRange>> number_;  // equal neighbours share their bytes
};

void add_object(Source& source, std::string view, const torch::FileRecord& pickle, Catalog& catalog) {
  if (view.empty()) return;
  Object object{source.name(), std::move(view), source.file_id(catalog), pickle.offset, pickle.size};
  if (pickle.crc) {
    object.record = catalog.add_record(object.file, pickle.offset, pickle.size, *pickle.crc, pickle.name);
  }
  catalog.objects.push_back(std::move(object));
}

}  // namespace

void add_rank_sets(LegacyCheckpoint& checkpoint, bool allow_expand, Catalog& catalog) {
  RankSets(checkpoint, allow_expand, catalog).run();
}

void add_loose(LegacyCheckpoint& checkpoint, bool allow_expand, Catalog& catalog) {
  std::set<std::string> names;
  for (LoadedRank& rank : checkpoint.ranks) {
    for (size_t i = 0; rank.model && i < rank.model->loose.size(); ++i) {
      const LooseTensor& loose = rank.model->loose[i];
      const std::string base = cat(stem_of(rank.model->source.name()), ".", loose.path);
      Tensor out;
      out.name = base;
      for (int n = 2; !names.insert(out.name).second; ++n)
        out.name = cat(base, "#", n);  // two paths, one spelling
      out.state = state::kOther;
      out.dtype = loose.info.dtype;
      out.shape = loose.info.shape;
      out.layout = "whole";
      out.refusal = loose.info.refusal.empty() ? torch::expansion_refusal(loose.info, allow_expand)
                                               : loose.info.refusal;
      const uint32_t mark = catalog.piece_mark();
      if (out.refusal.empty() && loose.info.numel() > 0) {
        const FileId file = rank.model->source.file_id(catalog);
        catalog.add_whole(file, rank.model->source.record_id(loose.info.record), loose.info.offset,
                          loose.info.shape, loose.info.stride, loose.info.flags);
      }
      out.pieces = catalog.pieces_since(mark);
      catalog.tensors.push_back(std::move(out));
    }
  }
}

void add_objects(LegacyCheckpoint& checkpoint, Catalog& catalog) {
  for (LoadedRank& rank : checkpoint.ranks) {
    if (rank.model) {
      merge_globals(catalog.globals, rank.model->globals);
      add_object(rank.model->source, std::move(rank.model->view), rank.model->pickle, catalog);
    }
    if (rank.optim) {
      merge_globals(catalog.globals, rank.optim->globals);
      add_object(rank.optim->source, std::move(rank.optim->view), rank.optim->pickle, catalog);
    }
  }
}

}  // namespace uckpt::megatron
