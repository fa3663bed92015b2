#include "lib/formats/deepspeed/write/output_pickle.h"

#include "lib/formats/torch/sizes.h"

namespace uckpt::deepspeed {

void OutputPickle::text(std::string_view key, DType dtype, int64_t storage_numel, const Shape& shape,
                        bool requires_grad) {
  out_.tensor({dtype, key, storage_numel, shape, torch::row_major(shape), 0, requires_grad});
}

void OutputPickle::tensor(const Hole& whole, const Shape& shape, bool requires_grad) {
  text(archive_.add_storage(whole), whole.dtype, whole.count, shape, requires_grad);
}

void OutputPickle::flat(DType dtype, int64_t numel, int64_t shown, const std::vector<Hole>& holes,
                        bool requires_grad) {
  const std::string key = archive_.add_storage(numel * unit_size(dtype));
  for (const Hole& hole : holes) archive_.fill(hole);
  text(key, dtype, numel, {shown}, requires_grad);
}

void OutputPickle::empty_tensor(DType dtype) { text(archive_.add_storage(0), dtype, 0, {0}, false); }

void OutputPickle::sizes(const std::vector<std::pair<std::string, Shape>>& list, bool as_torch_size) {
  out_.begin_dict(pickle::DictType::kOrderedDict);
  for (const auto& [parameter, shape] : list) {
    key(parameter);
    as_torch_size ? torch::write_size(out_, shape) : torch::write_tuple(out_, shape);
  }
  out_.end_dict();
}

void OutputPickle::enumerator(std::string_view module, std::string_view cls, int64_t value) {
  out_.begin_call();
  out_.global(module, cls);
  out_.begin_tuple(1);
  out_.integer(value);
  out_.end_tuple();
  out_.end_call();
}

void OutputPickle::numbers(const std::vector<int64_t>& list) {
  out_.begin_list();
  for (const int64_t n : list) out_.integer(n);
  out_.end_list();
}

void OutputPickle::place(std::string_view text, int64_t offset, const std::vector<int64_t>& strides) {
  key(text);
  out_.begin_list();
  out_.integer(offset);
  numbers(strides);
  out_.end_list();
}

void OutputPickle::names(const std::vector<std::string>& list) {
  out_.begin_list();
  for (const std::string& name : list) out_.text(name);
  out_.end_list();
}

}  // namespace uckpt::deepspeed
