// One file of a target checkpoint while its pickle is written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/torch/archive.h"
#include "lib/pickle/pickler.h"

namespace uckpt::megatron {

class OutputFile {
 public:
  // `name` is relative to the output.
  OutputFile(TargetLayout& layout, std::string name)
      : layout_(layout), name_(std::move(name)), archive_(torch::archive_root(name_)) {}

  pickle::Pickler& out() { return out_; }
  void key(std::string_view text) { out_.text(text); }
  void entry(std::string_view text, int64_t value) { key(text), out_.integer(value); }
  void entry(std::string_view text, double value) { key(text), out_.real(value); }
  void flag(std::string_view text, bool value) { key(text), out_.boolean(value); }
  void none(std::string_view text) { key(text), out_.none(); }

  // A tensor of its own storage: all of a shard.
  void tensor(const Hole& whole, const Shape& shape);
  // A flat float32 tensor; holes at their offsets in bytes, zeros between them.
  void flat(int64_t numel, const std::vector<Hole>& holes);
  // A float32 number as a tensor of no dims, as torch's optimizers keep steps.
  void scalar(float value);
  void dtype(DType value);  // torch.bfloat16

  void finish() { std::move(archive_).lay_out(name_, out_.finish(), layout_); }

 private:
  TargetLayout& layout_;
  std::string name_;
  torch::Archive archive_;
  pickle::Pickler out_;
};

}  // namespace uckpt::megatron
