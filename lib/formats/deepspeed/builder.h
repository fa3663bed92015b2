// Puts tensors into the catalog: one place decides what is new, what is a replica and what is refused.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/source.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

// Python regexes from a checkpoint. Two patterns of one list may not match the same name.
class Patterns {
 public:
  Patterns();
  ~Patterns();
  Patterns(Patterns&&) noexcept;
  Patterns& operator=(Patterns&&) noexcept;
  // Throws `deepspeed.pattern` for what RE2 cannot say as Python does.
  void add(const std::string& text);
  // The index of the pattern that matches as `re.match` would. Throws `deepspeed.pattern` if two do.
  std::optional<size_t> match(const std::string& name) const;
  // Patterns that matched nothing so far.
  std::vector<std::string> unused() const;
  bool empty() const { return patterns_.empty(); }

 private:
  struct Pattern;
  std::vector<Pattern> patterns_;
};

using PaddedRows = std::map<std::string, int64_t, std::less<>>;  // by name

// Patterns of universal_checkpoint_info that say which parameters have padding rows.
class Vocabulary {
 public:
  // Throws `deepspeed.pattern` for what RE2 cannot say as Python does.
  void set(const std::vector<std::string>& patterns, std::optional<int64_t> original_size);
  // The shape without padding rows. Throws `deepspeed.pattern` if two patterns match.
  Shape logical(const std::string& name, const Shape& shape) const;
  // How many rows those tensors were stored with that had padding.
  const PaddedRows& padded() const { return padded_; }
  // Patterns that matched nothing so far.
  std::vector<std::string> unused() const { return patterns_.unused(); }

 private:
  Patterns patterns_;
  std::optional<int64_t> original_size_;
  mutable PaddedRows padded_;
};

// A tensor about to enter the catalog.
struct NewTensor {
  std::string_view state;
  const std::string& name;
  DType dtype;
  const Shape& shape;  // logical
  std::string_view layout;
  std::string_view replica;  // what it is if the tensor is there already: "replica in pipeline stage 1"
};

class Builder {
 public:
  explicit Builder(Catalog& c) : catalog(c) {}
  Catalog& catalog;
  Vocabulary vocabulary;
  std::vector<Error> problems;
  bool allow_expand = false;
  int64_t tp_rank = 0;    // whose fragments are read, where there is tensor parallelism
  size_t incomplete = 0;  // tensors with a piece in a file that is not there

  std::optional<uint32_t> find(std::string_view state, std::string_view name) const;
  // The master or the weight of a parameter.
  std::optional<uint32_t> find_weight(std::string_view name) const;

  // Notes why the checkpoint cannot be converted; trouble with the machine is thrown on.
  void problem(const Error& e);
  // Runs a step; what it refuses becomes a problem, and the rest can still be described.
  void guard(const std::function<void()>& step);
  // Why a tensor can be listed but not copied; "" if it can.
  std::string refusal_of(const torch::TensorInfo& info) const;

  // Adds the tensor, or a copy of it if it is there. `pieces` adds the pieces to the catalog and may return
  // the name of a file that is missing: then the tensor is listed and refused.
  using PieceMaker = std::function<std::optional<std::string>()>;
  void put(const NewTensor& tensor, const PieceMaker& pieces);
  // A value that we hold. A second one must be equal, else `deepspeed.step_disagrees`.
  void put_scalar(std::string_view state, const std::string& name, const Scalar& value,
                  std::string_view where);
  // Lists a tensor that cannot be converted.
  void put_refused(const NewTensor& tensor, const std::string& why);
  void add_alias(std::string_view state, const std::string& name, uint32_t target);
  void add_copy(uint32_t tensor, DType dtype, bool is_module, std::string what,
                const std::function<void()>& pieces);

  // Pieces. The flat elements [start, start + extent) lie at element `skip` of the place.
  void flat(Source& source, const Place& place, int64_t numel, int64_t start, int64_t extent,
            int64_t skip = 0);
  // A whole tensor, or its first rows if `shape` has fewer.
  void whole(Source& source, const torch::TensorInfo& info, const Shape& shape);

 private:
  uint32_t add(const NewTensor& tensor);
  std::unordered_map<std::string, uint32_t> index_;  // path -> tensor
  std::unordered_map<std::string, Scalar> scalars_;
  std::optional<std::pair<Scalar, int64_t>> last_literal_;  // equal neighbours share their bytes
};

}  // namespace uckpt::deepspeed
