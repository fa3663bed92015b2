#include "lib/convert/written_sums.h"

#include <map>
#include <set>
#include <unordered_map>

#include "lib/convert/select.h"
#include "lib/convert/whole.h"
#include "lib/exec/read_tensor.h"
#include "lib/exec/scan.h"
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

// In the input's names.
std::vector<TensorSum> sums_as_written(const Catalog& catalog, const Prepared& prepared,
                                       const exec::Outcome& outcome) {
  std::map<uint32_t, exec::TensorDigest> digests;
  for (const exec::TensorDigest& d : outcome.tensor_digests) digests.emplace(d.tensor, d);
  const SumPaths paths(catalog, prepared.request.tensors);
  const std::set<uint32_t> unnamed(prepared.layout.unnamed.begin(), prepared.layout.unnamed.end());
  std::vector<TensorSum> sums;
  for (size_t i = 0; i < prepared.request.tensors.size(); ++i) {
    const uint32_t index = prepared.request.tensors[i];
    if (unnamed.contains(index)) continue;
    const Tensor& t = catalog.tensors[index];
    const uint32_t stored = t.alias.value_or(index);
    auto found = digests.find(stored);
    // Numbers that a pickle spells out are no tensor bytes of the layout.
    if (found == digests.end() && t.state == state::kStep)
      found = digests.emplace(stored, exec::TensorDigest{stored, t.dtype, digest_of(catalog, t)}).first;
    // Nor need what has no elements have a place there.
    if (found == digests.end() && units_of(t) == 0)
      found =
          digests.emplace(stored, exec::TensorDigest{stored, prepared.request.dtype_of(catalog, i), 0}).first;
    if (found != digests.end())
      sums.push_back({paths.of(t), found->second.dtype, t.shape, crc64_text(found->second.crc64)});
  }
  return sums;
}

// Gives the sums of the output's tensors the digests that were found while they were written. False: it has
// one that was not written under its name.
bool take_digests(std::vector<TensorSum>& sums, const std::vector<TensorSum>& written) {
  std::unordered_map<std::string_view, const TensorSum*> by_path;
  for (const TensorSum& sum : written) by_path.emplace(sum.path, &sum);
  for (TensorSum& sum : sums) {
    const auto found = by_path.find(sum.path);
    if (found == by_path.end() || found->second->dtype != sum.dtype || found->second->shape != sum.shape)
      return false;
    sum.digest = found->second->digest;
  }
  return true;
}

void read_digests(const Catalog& catalog, std::span<const uint32_t> tensors, const exec::Buffers& buffers,
                  std::vector<TensorSum>& sums, Progress& progress, const StopFlag& stop) {
  std::vector<uint32_t> stored;
  std::unordered_map<uint32_t, size_t> place;  // of each in `stored`
  for (const uint32_t t : tensors) {
    const uint32_t source = catalog.tensors[t].alias.value_or(t);
    if (place.try_emplace(source, stored.size()).second) stored.push_back(source);
  }
  const exec::WholeTensors whole =
      exec::whole_tensors(catalog, stored, {.check_crc = false, .compare_copies = false});
  const exec::Scanned found = exec::scan(whole, buffers, {"reading", true}, {}, progress, stop);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint32_t source = catalog.tensors[tensors[i]].alias.value_or(tensors[i]);
    sums[i].digest = crc64_text(found.digests[place.at(source)]);
  }
}

}  // namespace

std::vector<TensorSum> written_sums(const Catalog& catalog, const Prepared& prepared,
                                    const exec::Outcome& outcome, const std::string& output,
                                    const RuleOptions& rules, Progress& progress, const StopFlag& stop) {
  std::vector<TensorSum> written = sums_as_written(catalog, prepared, outcome);
  std::vector<TensorSum> sums;
  try {
    RuleOptions of_output;
    of_output.spec = rules.spec;
    of_output.set = rules.set;
    of_output.naming = rules.as;
    Catalog found = open_whole(output, {}, of_output, false);
    if (found.refusal) return written;
    const std::vector<uint32_t> tensors = select_tensors(found, {});
    const SumPaths paths(found, tensors);
    for (const uint32_t t : tensors)
      sums.push_back({paths.of(found.tensors[t]), found.tensors[t].dtype, found.tensors[t].shape, ""});
    if (!take_digests(sums, written)) read_digests(found, tensors, prepared.buffers, sums, progress, stop);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kRefused) throw;
    return written;  // rules alone can open it, and these are others
  }
  return sums;
}

}  // namespace uckpt
