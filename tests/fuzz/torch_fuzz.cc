// A torch.save file, zip or legacy, on any bytes: opened, every tensor looked at, its first and last byte
// read.
#include "lib/base/error.h"
#include "lib/formats/torch/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uckpt;
  pickle::Limits limits;
  limits.json_bytes = 1 << 20;
  try {
    const auto source = std::make_shared<MemorySource>("fuzz", Bytes(data, data + size));
    const auto file = torch::TorchFile::open(source, limits);
    const pickle::Value root = file->root();
    const auto look = [&](const pickle::Value& v) {
      const auto t = file->tensor(v);
      if (!t || !t->refusal.empty() || t->numel() == 0) return;
      int64_t last = t->offset;
      for (size_t d = 0; d < t->shape.size(); ++d)
        last += (t->shape[d] - 1) * t->stride[d] * item_size(t->dtype);
      source->read_range(t->offset, item_size(t->dtype));
      source->read_range(last, item_size(t->dtype));
    };
    look(root);
    if (root.is_dict())
      for (size_t i = 0; i < root.size(); ++i) look(root.entry(i).second);
    file->json();
  } catch (const Error&) {
  }
  return 0;
}
