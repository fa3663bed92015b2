// One file of a target checkpoint while its pickle is written.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/deepspeed/write/shard_book.h"
#include "lib/formats/torch/archive.h"
#include "lib/pickle/pickler.h"

namespace uckpt::deepspeed {

class OutputPickle {
 public:
  // `name` is relative to the output.
  OutputPickle(ShardBook& book, std::string name)
      : book_(book), name_(std::move(name)), archive_(torch::archive_root(name_)) {}

  pickle::Pickler& out() { return out_; }
  ShardBook& book() { return book_; }

  void key(std::string_view text) { out_.text(text); }
  void entry(std::string_view text, int64_t value) { key(text), out_.integer(value); }

  // A tensor of its own storage: all of a shard.
  void tensor(const Hole& whole, const Shape& shape, bool requires_grad = false);
  // A flat tensor of `numel` elements, the first `shown` of them visible; holes at their offsets in bytes.
  void flat(DType dtype, int64_t numel, int64_t shown, const std::vector<Hole>& holes,
            bool requires_grad = false);
  void empty_tensor(DType dtype);  // of shape (0,)
  void sizes(const std::vector<std::pair<std::string, Shape>>& list, bool as_torch_size = true);
  // `cls(number)`, as an enum is pickled.
  void enumerator(std::string_view module, std::string_view cls, int64_t value);
  void names(const std::vector<std::string>& list);
  void numbers(const std::vector<int64_t>& list);
  // Where a fragment lies: `[offset, strides]`, in elements.
  void place(std::string_view text, int64_t offset, const std::vector<int64_t>& strides);

  void finish() { std::move(archive_).lay_out(name_, out_.finish(), book_.layout()); }

 private:
  void text(std::string_view key, DType dtype, int64_t storage_numel, const Shape& shape, bool requires_grad);

  ShardBook& book_;
  std::string name_;
  torch::Archive archive_;
  pickle::Pickler out_;
};

}  // namespace uckpt::deepspeed
