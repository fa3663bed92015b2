// model_optim_rng.pt: the module weights of a rank's chunks, its optimizer's options, and the program's
// state.
#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/megatron/write/target.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr std::string_view kExtraState = "_extra_state";

class ModelWriter {
 public:
  ModelWriter(const TargetCheckpoint& target, size_t number)
      : target_(target),
        number_(number),
        at_(target.mesh.files[number]),
        origin_(target.source.nearest(at_.tp, at_.pp, at_.ep)),
        file_(target.parts.layout(), cat(target.folder, target.mesh.folder_of(at_), "/model_optim_rng.pt")),
        out_(file_.out()),
        copier_(file_, target.parts, target.notes) {}

  void write() {
    out_.begin_dict();
    file_.key("args");
    write_args(file_, target_, copier_);
    file_.entry("checkpoint_version", 3.0);
    file_.entry("iteration", target_.iteration.value_or(0));
    for (int64_t v = 0; v < target_.mesh.vp; ++v) {
      file_.key(target_.mesh.vp > 1 ? cat("model", v) : "model");
      model(target_.rank_of(number_, v));
    }
    if (target_.has_optimizer) {
      file_.key("optimizer");
      write_optimizer(file_, target_, copier_, number_);
    }
    rest();
    rng_state();
    out_.end_dict();
    file_.finish();
  }

 private:
  // A parameter, or the extra state of a module.
  struct Entry {
    ModuleOrder::Key order;
    const Held* held = nullptr;
    std::string name, shape;
    std::vector<int64_t> numbers;  // global ones, of an extra state
  };

  void model(size_t rank) {
    std::vector<Entry> entries;
    for (const Held& h : target_.parts.held(rank)) entries.push_back({h.order, &h, h.name, {}, {}});
    add_extra_states(rank, entries);
    std::ranges::stable_sort(entries, {}, &Entry::order);
    std::map<std::string, pickle::Pickler::Memo> written;
    out_.begin_dict(pickle::DictType::kOrderedDict);
    for (const Entry& e : entries) {
      out_.text(e.name);
      e.held ? weight(rank, *e.held, written) : extra_state(e);
    }
    out_.end_dict();
  }

  void weight(size_t rank, const Held& h, std::map<std::string, pickle::Pickler::Memo>& written) {
    if (const auto seen = h.tied_to ? written.find(*h.tied_to) : written.end(); seen != written.end())
      return out_.again(seen->second);
    const bool is_copy = target_.keeps_states(at_, h) && !target_.is_fp32() && h.weight() == h.master;
    file_.tensor(target_.parts.hole(rank, h.weight(), h.dtype, is_copy), h.shape);
    written.emplace(h.name, out_.last());
  }

  // Megatron's own layers ignore an extra state and add a missing one themselves; Transformer Engine's keep
  // the scales of fp8 there, and want the key where `load_state_dict` is strict. So they are where the source
  // has them, for the modules that this rank has.
  void add_extra_states(size_t rank, std::vector<Entry>& entries) const {
    const ModuleOrder& order = target_.source.order();
    if (order.extra_states().empty()) return;
    std::map<std::string, const Held*> modules;  // "decoder.layers.0.mlp.", and any name in it
    for (const Held& h : target_.parts.held(rank))
      for (size_t dot = h.name.find('.'); dot != std::string::npos; dot = h.name.find('.', dot + 1))
        modules.try_emplace(h.name.substr(0, dot + 1), &h);
    for (const std::string& shape : order.extra_states()) {
      const std::string module = shape.substr(0, shape.size() - kExtraState.size());
      // A module without parameters is where the one around it is.
      const bool has_own = order.has_parameters(module);
      const std::string around =
          has_own ? module : module.substr(0, module.rfind('.', module.size() - 2) + 1);
      for (const auto& [prefix, held] : modules) {
        if (template_of(prefix) != around) continue;
        Entry e;
        e.name = cat(prefix, module.substr(around.size()), kExtraState);
        e.order = order.key_of(e.name);
        e.shape = shape;
        std::vector<int64_t> local;
        (void)template_of(e.name, &local);
        (void)template_of(held->logical_name, &e.numbers);
        e.numbers.resize(local.size());
        entries.push_back(std::move(e));
      }
    }
  }

  void extra_state(const Entry& e) {
    const SourceFile* from = nullptr;
    const Value value = target_.source.extra_state(e.shape, e.numbers, at_.tp, &from);
    value ? copier_.copy(value, *from) : out_.none();
  }

  // What the program keeps beside: schedule, counters. What depends on the ranks stays with their mesh.
  void rest() {
    const SourceFile& from = origin_ ? *origin_ : target_.source.common();
    bool has_scheduler = false;
    for (size_t i = 0; from.root && from.root.is_dict() && i < from.root.size(); ++i) {
      const auto [key, value] = from.root.entry(i);
      const std::string name(key.text().value_or(""));
      if (is_own(name)) continue;
      has_scheduler |= name == "opt_param_scheduler" || name == "lr_scheduler";
      out_.copy(key);
      copier_.copy(value, from);
    }
    if (target_.has_optimizer && !has_scheduler) {
      file_.key("opt_param_scheduler");
      write_scheduler(file_, target_);
    }
  }

  bool is_own(const std::string& name) const {
    static constexpr std::string_view kOwn[] = {"args",      "checkpoint_version", "iteration",       "model",
                                                "optimizer", "rng_state",          "content_metadata"};
    if (std::ranges::find(kOwn, name) != std::end(kOwn)) return true;
    if (name == "rerun_state_machine") return !target_.mesh.is_as(target_.catalog.mesh);
    return name.starts_with("model") && name.size() > 5 &&
           name.find_first_not_of("0123456789", 5) == std::string::npos;
  }

  // A loader stops without them, unless told `--no-load-rng` or `--finetune`, or of a release.
  void rng_state() {
    const SourceState::Found found = target_.source.rng(at_.tp, at_.pp, at_.ep, at_.dp);
    if (!found.value) return;
    file_.key("rng_state");
    copier_.copy(found.value, *found.file);
  }

  const TargetCheckpoint& target_;
  const size_t number_;
  const RankFile& at_;
  const SourceFile* origin_;
  OutputFile file_;
  pickle::Pickler& out_;
  StateCopier copier_;
};

}  // namespace

void add_model_file(const TargetCheckpoint& target, size_t file) { ModelWriter(target, file).write(); }

}  // namespace uckpt::megatron
