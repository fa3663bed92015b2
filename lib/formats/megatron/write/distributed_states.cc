// distrib_optim.pt: the flat states of the distributed optimizer, in the form without padding of buckets.
#include "lib/base/text.h"
#include "lib/formats/megatron/write/target.h"

namespace uckpt::megatron {

namespace {

class StatesWriter {
 public:
  StatesWriter(const TargetCheckpoint& target, size_t number)
      : target_(target),
        number_(number),
        at_(target.mesh.files[number]),
        file_(target.parts.layout(), cat(target.folder, target.mesh.folder_of(at_), "/distrib_optim.pt")),
        out_(file_.out()) {}

  // A list where experts have an optimizer of their own; what another file has is None.
  void write() {
    if (!target_.has_experts) {
      optimizer(false);
    } else {
      out_.begin_list();
      for (const bool of_experts : {false, true}) {
        const bool is_here = of_experts ? at_.has_expert_states : at_.has_dense_states;
        is_here ? optimizer(of_experts) : out_.none();
      }
      out_.end_list();
    }
    file_.finish();
  }

 private:
  // Buffers count through the chunks.
  void optimizer(bool of_experts) {
    out_.begin_dict();
    file_.flag("buckets_coalesced", true);
    int64_t number = 0;
    for (int64_t v = 0; v < target_.mesh.vp; ++v) {
      const size_t rank = target_.rank_of(number_, v);
      std::vector<const Held*> list;
      std::vector<GradParameter> parameters;
      for (const Held& h : target_.parts.held(rank)) {
        if (!h.is_trained()) continue;
        list.push_back(&h);
        const bool is_shared = h.is_shared_embedding && target_.mesh.pp > 1;
        parameters.push_back({h.numel(), h.dtype, h.is_expert, is_shared});
      }
      const BucketRule rule = bucket_rule(at_.pp, v, target_.bucket_size(number_));
      for (const GradBuffer& b : grad_buffers(parameters, rule)) {
        if (b.is_expert != of_experts) continue;
        out_.integer(number++);
        buffer(rank, list, b);
      }
    }
    out_.end_dict();
  }

  void buffer(size_t rank, const std::vector<const Held*>& list, const GradBuffer& b) {
    out_.begin_dict();
    out_.begin_tuple(2);
    file_.dtype(b.dtype);
    file_.dtype(target_.grad_dtype(b.dtype));
    out_.end_tuple();
    out_.begin_dict();
    for (const std::string_view state : {"param", "exp_avg", "exp_avg_sq"}) {
      std::vector<Hole> holes;
      for (const PlacedParameter& p : b.parameters) {
        const Held& h = *list[p.parameter];
        Hole hole = state == "param"
                        ? target_.parts.hole(rank, *h.trained_weight(), DType::kF32, !h.master.has_value())
                        : target_.parts.hole(rank, h.states.find(state)->second, DType::kF32, false);
        hole.offset = p.coalesced * item_size(DType::kF32);
        holes.push_back(hole);
      }
      file_.key(state);
      file_.flat(b.numel_unpadded, holes);
    }
    file_.entry("numel_unpadded", b.numel_unpadded);
    out_.end_dict();
    out_.end_dict();
  }

  const TargetCheckpoint& target_;
  const size_t number_;
  const RankFile& at_;
  OutputFile file_;
  pickle::Pickler& out_;
};

}  // namespace

void add_distributed_states(const TargetCheckpoint& target, size_t file) {
  const RankFile& at = target.mesh.files[file];
  if (at.has_dense_states || (target.has_experts && at.has_expert_states)) StatesWriter(target, file).write();
}

}  // namespace uckpt::megatron
