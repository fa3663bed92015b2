#include "lib/formats/megatron/write/output_file.h"

#include <bit>

#include "lib/formats/torch/sizes.h"

namespace uckpt::megatron {

void OutputFile::tensor(const Hole& whole, const Shape& shape) {
  const std::string key = whole.count == 0 ? archive_.add_storage(0) : archive_.add_storage(whole);
  out_.tensor({whole.dtype, key, whole.count, shape, torch::row_major(shape), 0, false});
}

void OutputFile::flat(int64_t numel, const std::vector<Hole>& holes) {
  const std::string key = archive_.add_storage(numel * item_size(DType::kF32));
  for (const Hole& hole : holes)
    if (hole.count > 0) archive_.fill(hole);
  const Shape shape = {numel};
  out_.tensor({DType::kF32, key, numel, shape, torch::row_major(shape), 0, false});
}

void OutputFile::scalar(float value) {
  Bytes content(sizeof value);
  store_le(content.data(), std::bit_cast<uint32_t>(value));
  out_.tensor({DType::kF32, archive_.add_storage(std::move(content)), 1, {}, {}, 0, false});
}

void OutputFile::dtype(DType value) { out_.global("torch", info(value).torch); }

}  // namespace uckpt::megatron
