#include "lib/convert/written_sums.h"

#include <map>
#include <set>

#include "lib/exec/read_tensor.h"
#include "lib/kernels/crc.h"

namespace uckpt {

namespace {

uint64_t digest_of(const Catalog& catalog, const Tensor& tensor) {
  uint64_t raw = 0, bytes = 0;
  read_tensor(catalog, tensor, [&](ByteSpan part) {
    raw = kernels::Crc64::shift(raw, part.size()) ^ kernels::crc64_raw(part);
    bytes += part.size();
  });
  return kernels::Crc64::finish(raw, bytes);
}

}  // namespace

std::vector<TensorSum> written_sums(const Catalog& catalog, const Prepared& prepared,
                                    const exec::Outcome& outcome) {
  std::map<uint32_t, exec::TensorDigest> digests;
  for (const exec::TensorDigest& d : outcome.tensor_digests) digests.emplace(d.tensor, d);
  const SumPaths paths(catalog, prepared.request.tensors);
  const std::set<uint32_t> unnamed(prepared.layout.unnamed.begin(), prepared.layout.unnamed.end());
  std::vector<TensorSum> sums;
  for (const uint32_t index : prepared.request.tensors) {
    if (unnamed.contains(index)) continue;
    const Tensor& t = catalog.tensors[index];
    const uint32_t stored = t.alias.value_or(index);
    auto found = digests.find(stored);
    // Numbers that a pickle spells out are no tensor bytes of the layout.
    if (found == digests.end() && t.state == state::kStep)
      found = digests.emplace(stored, exec::TensorDigest{stored, t.dtype, digest_of(catalog, t)}).first;
    if (found != digests.end())
      sums.push_back({paths.of(t), found->second.dtype, t.shape, crc64_text(found->second.crc64)});
  }
  return sums;
}

}  // namespace uckpt
