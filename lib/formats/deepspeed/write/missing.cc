#include "lib/formats/deepspeed/write/missing.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/source_objects.h"
#include "lib/io/input.h"
#include "lib/tensor/quantized.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;
using Names = std::set<std::string, std::less<>>;

// States of torch's and DeepSpeed's optimizers that are zero, in the master's shape, before the first step.
constexpr std::array<std::string_view, 8> kBeginAtZero = {"exp_avg",         "exp_avg_sq", "max_exp_avg_sq",
                                                          "exp_inf",         "square_avg", "acc_delta",
                                                          "momentum_buffer", "grad_avg"};
constexpr std::string_view kWayOut =
    "--missing zero takes masters from the weights, moments as zeros and AdamW's default options";

// "bf16 and fp16"
std::string joined(const Names& names) {
  std::string out;
  for (const std::string& name : names) out += cat(out.empty() ? "" : " and ", name);
  return out;
}

bool begins_at_zero(std::string_view state) {
  return state == state::kStep || std::ranges::find(kBeginAtZero, state) != kBeginAtZero.end();
}

class Completion {
 public:
  Completion(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill, std::vector<std::string>& notes)
      : catalog_(catalog), tensors_(tensors), fill_(fill), notes_(notes), source_(catalog) {}

  void run() {
    trained_weights();
    tell_widened_masters();
    masters();
    sort();
    if (trained_.empty()) return;  // there is nothing to train, which the writer refuses
    groups();
    for (const std::string& state : wanted()) complete_state(state);
    // Aliases stay the last ones.
    const auto first_alias = std::find_if(tensors_.begin(), tensors_.end(),
                                          [&](uint32_t i) { return catalog_.tensors[i].alias.has_value(); });
    tensors_.insert(first_alias, added_.begin(), added_.end());
    tell_states();
  }

 private:
  [[noreturn]] void fail(std::string_view code, std::string text, std::string_view tensor) const {
    throw refused(std::string(code), std::move(text))
        .in_file(catalog_.path)
        .in_tensor(tensor)
        .hint(std::string(kWayOut));
  }

  // Without any master: weights in fp32 that have states of an optimizer are what it trains, so masters
  // themselves. Of what is left, numbers that no optimizer trains are buffers, and the rest is frozen.
  void trained_weights() {
    Names with_state;
    for (const uint32_t i : tensors_) {
      const Tensor& t = catalog_.tensors[i];
      if (t.state == state::kMaster) return;
      if (!is_weight(t.state) && t.state != state::kOther && t.state != state::kStep)
        with_state.insert(t.name);
    }
    const auto is_trained = [&](const Tensor& t) {
      return t.state == state::kParam && t.dtype == DType::kF32 && with_state.contains(t.name);
    };
    const bool any =
        std::ranges::any_of(tensors_, [&](uint32_t i) { return is_trained(catalog_.tensors[i]); });
    if (!any) return;
    size_t frozen = 0;
    std::string first_frozen;
    for (const uint32_t i : tensors_) {
      Tensor& t = catalog_.tensors[i];
      if (t.state != state::kParam) continue;
      if (is_trained(t)) {
        t.state = state::kMaster;
        t.module_dtype = t.dtype;
      } else if (!is_float(t.dtype) || t.name.ends_with("running_mean") || t.name.ends_with("running_var")) {
        t.state = state::kBuffer;
      } else if (!t.alias && frozen++ == 0) {
        first_frozen = t.name;
      }
    }
    if (frozen > 0)
      notes_.push_back(
          cat(frozen,
              frozen == 1 ? " weight without states of the optimizer is written as a frozen one: "
                          : " weights without states of the optimizer are written as frozen ones: ",
              escape(first_frozen), frozen == 1 ? "" : ", …",
              "; the input does not tell buffers and tied names from them, which at stages 1 and "
              "2 does not matter"));
  }

  // A run may keep its masters in 16 bits (bf16_master_weights_and_grads), and so may a file that they were
  // cast for: DeepSpeed's files have them in fp32.
  void tell_widened_masters() {
    Names types;
    size_t count = 0;
    for (const uint32_t i : tensors_) {
      const Tensor& t = catalog_.tensors[i];
      if (t.state != state::kMaster || t.alias || t.dtype == DType::kF32) continue;
      types.emplace(name_of(t.dtype));
      ++count;
    }
    if (count > 0)
      notes_.push_back(cat(count, count == 1 ? " master is " : " masters are ", joined(types),
                           " in the input: written as fp32, as DeepSpeed's files have them"));
  }

  // Where there is no master at all, the weights become masters. Else those without one are frozen.
  void masters() {
    std::vector<uint32_t> weights;
    for (const uint32_t i : tensors_) {
      const Tensor& t = catalog_.tensors[i];
      if (t.state == state::kMaster) return;
      if (t.state == state::kParam && is_float(t.dtype)) weights.push_back(i);
    }
    if (weights.empty()) return;
    if (!fill_)
      fail("deepspeed.no_masters",
           "it has weights and no fp32 masters, which a DeepSpeed checkpoint is made of", "");
    Names dtypes;
    const Scales scales = scales_of_quantized(catalog_);
    for (const uint32_t i : weights) {
      Tensor& t = catalog_.tensors[i];
      if (scales.contains(t.name))
        throw quantized(catalog_, t, scales, DType::kF32)
            .hint("what quantized it makes weights to train from");
      dtypes.emplace(name_of(t.dtype));
      t.state = state::kMaster;
      t.module_dtype = t.dtype;
    }
    notes_.push_back(cat("--missing zero: the fp32 masters of ", weights.size(),
                         " parameters are taken from their ", joined(dtypes),
                         " weights, every floating one of which is trained"));
  }

  void sort() {
    for (const uint32_t i : tensors_) {
      const Tensor& t = catalog_.tensors[i];
      if (t.state == state::kMaster && !t.alias) trained_.push_back(i);
      if (!is_weight(t.state) && t.state != state::kOther) has_[t.state].insert(t.name);
    }
  }

  void groups() {
    options_ = source_.param_groups();
    if (options_) return;
    const Value shapes = source_.empty() ? Value() : source_.param_shapes(0);
    const bool has_lists = shapes && shapes.is_sequence();  // an elastic checkpoint has them and no options
    if (!fill_)
      fail("deepspeed.no_groups",
           has_lists
               ? "its groups of parameters have no options of an optimizer (lr, betas, weight_decay, …), "
                 "which a DeepSpeed checkpoint keeps and a loader takes"
               : "expected the parameter groups of one optimizer, which a DeepSpeed checkpoint keeps, found "
                 "none, or those of several",
           "");
    notes_.push_back(cat("--missing zero: all ", trained_.size(), " parameters ",
                         has_lists ? "stay in their groups, which get" : "are put into one group with",
                         " the defaults of torch's AdamW: lr ",
                         source_.scheduled_rate(0) ? "as its scheduler has it" : "0.001",
                         ", betas 0.9 and 0.999, eps 1e-08, weight_decay 0.01"));
  }

  // As the optimizer's own entries say; where there are none, what the input has; where nothing tells the
  // optimizer, what AdamW keeps.
  std::vector<std::string> wanted() const {
    std::vector<std::string> out;
    const Value entries = source_.group_state();
    if (entries && entries.is_dict())
      for (size_t i = 0; i < entries.size(); ++i)
        if (const auto key = entries.entry(i).first.text(); key && begins_at_zero(*key))
          out.emplace_back(*key);
    const auto add = [&](const std::string& state) {
      if (std::ranges::find(out, state) == out.end()) out.push_back(state);
    };
    for (const auto& [state, names] : has_) add(state);
    if (out.empty() && !options_)
      for (const char* state : {"step", "exp_avg", "exp_avg_sq"}) add(state);
    return out;
  }

  void complete_state(const std::string& state) {
    const auto found = has_.find(state);
    for (const uint32_t i : trained_) {
      const std::string name = catalog_.tensors[i].name;
      if (found != has_.end() && found->second.contains(name)) continue;
      // What some parameters have, others may rightly lack: the writer knows the groups.
      if (!fill_ && found != has_.end()) return;
      if (!fill_)
        fail("deepspeed.missing",
             cat("a DeepSpeed checkpoint keeps ", escape(state), " of each parameter, which the input lacks"),
             cat(state, "/", name));
      if (!begins_at_zero(state))
        throw refused("deepspeed.missing", "it is not there, and nothing tells what it begins with")
            .in_file(catalog_.path)
            .in_tensor(cat(state, "/", name));
      state == state::kStep ? add_step(name) : add_zeros(state, i);
      ++filled_[state];
    }
  }

  void add_zeros(const std::string& state, uint32_t master) {
    if (!zeros_) zeros_ = catalog_.add_file(std::make_shared<MemorySource>("zeros", Bytes(8)));
    const Tensor& like = catalog_.tensors[master];
    const int64_t numel = numel_of(like.shape);
    const Axis one_for_all{numel, 0, numel, 0};
    const uint32_t mark = catalog_.piece_mark();
    catalog_.add_piece(*zeros_, kNoRecord, 0, {&one_for_all, 1});
    add(state, like.name, DType::kF32, like.shape, mark);
  }

  // Of the kind that the optimizer keeps: a number, or a tensor of one.
  void add_step(const std::string& name) {
    const Value entries = source_.group_state();
    const Value seen = entries && entries.is_dict() ? entries.get(state::kStep) : Value();
    const DType dtype = seen && seen.integer() ? DType::kI64 : DType::kF32;
    const uint32_t mark = catalog_.piece_mark();
    catalog_.add_literal(Bytes(static_cast<size_t>(item_size(dtype))), 1);
    add(std::string(state::kStep), name, dtype, {}, mark);
  }

  void add(std::string state, std::string name, DType dtype, Shape shape, uint32_t mark) {
    Tensor t{};
    t.state = std::move(state);
    t.name = std::move(name);
    t.dtype = dtype;
    t.shape = std::move(shape);
    t.pieces = catalog_.pieces_since(mark);
    t.layout = "zero, the input has none";
    added_.push_back(static_cast<uint32_t>(catalog_.tensors.size()));
    catalog_.tensors.push_back(std::move(t));
  }

  void tell_states() {
    std::map<int64_t, std::string> zeros;  // by how many parameters
    for (const auto& [state, count] : filled_) {
      if (state == state::kStep) continue;
      std::string& list = zeros[count];
      list += cat(list.empty() ? "" : " and ", escape(state));
    }
    for (const auto& [count, states] : zeros)
      notes_.push_back(cat("--missing zero: ", states, " of ", count, " parameters are zeros"));
    if (const auto steps = filled_.find(state::kStep); steps != filled_.end())
      notes_.push_back(cat("--missing zero: the step of ", steps->second, " parameters is 0"));
  }

  Catalog& catalog_;
  std::vector<uint32_t>& tensors_;
  const bool fill_;
  std::vector<std::string>& notes_;
  const SourceObjects source_;
  Value options_;
  std::vector<uint32_t> trained_, added_;
  std::map<std::string, Names, std::less<>> has_;  // state -> names
  std::map<std::string, int64_t, std::less<>> filled_;
  std::optional<FileId> zeros_;
};

}  // namespace

void complete(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill, std::vector<std::string>& notes) {
  Completion(catalog, tensors, fill, notes).run();
}

}  // namespace uckpt::deepspeed
