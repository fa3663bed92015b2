#include "lib/examine/opened.h"

#include <algorithm>
#include <unordered_map>

#include "lib/convert/select.h"
#include "lib/kernels/elements.h"

namespace uckpt {

exec::Buffers ReadOptions::buffers(std::span<const Catalog* const> catalogs) const {
  exec::Budget budget = exec::budget_to_read(catalogs);
  budget.threads = threads;
  budget.max_mem = max_mem;
  return exec::size_buffers(budget);
}

Opened open_to_read(const std::string& path, const ReadOptions& options) {
  Opened out{open_whole(path, options.open, options.rules, false), {}, {}, {}};
  if (out.catalog.refusal) throw *out.catalog.refusal;
  out.tensors = select_tensors(out.catalog, options.selection);
  std::unordered_map<uint32_t, uint32_t> at;  // of a tensor in `stored`
  for (const uint32_t t : out.tensors) {
    Tensor& tensor = out.catalog.tensors[t];
    std::erase_if(tensor.copies,
                  [&](const Copy& copy) { return !kernels::comparable(tensor.dtype, copy.dtype); });
    const auto [found, is_new] =
        at.try_emplace(tensor.alias.value_or(t), static_cast<uint32_t>(out.stored.size()));
    if (is_new) out.stored.push_back(found->first);
    out.stored_at.push_back(found->second);
  }
  return out;
}

}  // namespace uckpt
