// The files of a pipeline's layers, and of experts: dicts of module weights.
#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::deepspeed {

namespace {

// One entry a weight, under the rest of its name behind `prefix`.
class WeightDict {
 public:
  WeightDict(const TargetCheckpoint& target, std::string name)
      : target_(target), file_(target.book, std::move(name)) {}

  OutputPickle& file() { return file_; }

  void add(const std::string& name, size_t prefix) {
    const Named& n = target_.parameters.at(name);
    file_.key(std::string_view(name).substr(prefix));
    if (const auto seen = n.tied_to ? written_.find(*n.tied_to) : written_.end(); seen != written_.end())
      return file_.out().again(seen->second);
    if (const auto part = target_.book.find(n.weight())) {
      file_.tensor(target_.book.whole(n.weight(), n.module_dtype), part->shape);
    } else {
      file_.empty_tensor(n.module_dtype);
    }
    written_.emplace(name, file_.out().last());
  }

 private:
  const TargetCheckpoint& target_;
  OutputPickle file_;
  std::map<std::string, pickle::Pickler::Memo> written_;
};

std::string expert_file(const TargetCheckpoint& target, int64_t layer, int64_t expert, int64_t tp_rank) {
  return cat(target.folder, "layer_", layer, "_expert_", expert, "_mp_rank_", zero_padded(tp_rank, 2),
             "_model_states.pt");
}

// The rows of one expert in AutoEP's weights of a layer.
void add_fused_rows(const TargetCheckpoint& target, const FusedExperts& layer, int64_t expert,
                    OutputPickle& file) {
  for (const std::string_view part : {".w1", ".w2", ".w3"}) {
    const std::string name = cat(layer.prefix, part);
    if (!target.parameters.has(name)) continue;
    const Named& n = target.parameters.at(name);
    Shape shape = target.parameters.shape(n);
    shape.erase(shape.begin());
    const int64_t count = numel_of(shape);
    if (n.is_frozen()) target.book.own(n.weight());
    Hole hole = target.book.range(n.weight(), expert * count, count);
    hole.is_copy = !n.is_frozen();
    hole.dtype = n.module_dtype;
    file.key(cat(name, ".", expert));
    file.tensor(hole, shape);
  }
}

}  // namespace

void add_layer_files(const TargetCheckpoint& target, int64_t tp_rank) {
  const bool has_rank = target.tp > 1 || target.source.layer_names_have_rank();
  for (const PipelineLayer& layer : target.parameters.pipeline()) {
    WeightDict dict(target, cat(target.folder, "layer_", zero_padded(layer.number, 2),
                                has_rank ? cat("-model_", zero_padded(tp_rank, 2)) : "", "-model_states.pt"));
    pickle::Pickler& out = dict.file().out();
    out.begin_dict_like(layer.like);
    for (const std::string& name : layer.names) dict.add(name, layer.prefix.size());
    if (layer.like.state()) {
      out.state();
      out.copy(layer.like.state());
    }
    out.end_dict();
    dict.file().finish();
  }
}

void add_expert_files(const TargetCheckpoint& target, int64_t tp_rank) {
  for (const MoeLayer& layer : target.parameters.moe()) {
    for (int64_t e = 0; e < layer.experts; ++e) {
      WeightDict dict(target, expert_file(target, layer.number, e, tp_rank));
      dict.file().out().begin_dict();
      for (const std::string& part : layer.parts) dict.add(layer.name(e, part), 0);
      dict.file().out().end_dict();
      dict.file().finish();
    }
  }
  for (const FusedExperts& layer : target.parameters.fused()) {
    for (int64_t e = 0; e < layer.experts; ++e) {
      OutputPickle file(target.book, expert_file(target, layer.layer, e, tp_rank));
      file.out().begin_dict();
      add_fused_rows(target, layer, e, file);
      file.out().end_dict();
      file.finish();
    }
  }
}

}  // namespace uckpt::deepspeed
