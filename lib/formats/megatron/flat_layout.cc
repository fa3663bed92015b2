#include "lib/formats/megatron/flat_layout.h"

#include <algorithm>

namespace uckpt::megatron {

namespace {

constexpr size_t kMostSteps = 20'000'000;  // parameters placed in a search

bool fits_lists(const GradBuffer& layout, const FlatQuestion& q) {
  const std::vector<Place>& arrays = q.found->states.front().second;
  if (arrays.size() != layout.buckets.size()) return false;
  for (size_t b = 0; b < arrays.size(); ++b) {
    const int64_t padding = arrays[b].numel - layout.buckets[b].numel_unpadded;
    if (padding < 0 || padding > q.most_padding) return false;
  }
  return true;
}

bool fits(const GradBuffer& layout, const FlatQuestion& q) {
  if (q.found->states.empty()) return false;
  if (!q.found->is_coalesced) return fits_lists(layout, q);
  return q.found->states.front().second.front().numel == layout.numel_unpadded;
}

FlatPlaces places_of(const GradBuffer& layout, const FlatQuestion& q) {
  FlatPlaces out;
  for (const PlacedParameter& p : layout.parameters) {
    if (q.found->is_coalesced) {
      out.push_back({p.parameter, 0, p.coalesced});
    } else {
      out.push_back({p.parameter, p.bucket, layout.start_in_bucket(p)});
    }
  }
  return out;
}

}  // namespace

std::optional<FlatPlaces> lay_out_by_rule(const FlatQuestion& q) {
  std::vector<BucketRule> rules = {q.rule};
  for (const BucketRule& other : other_rules(q.rule, q.bucket_size)) rules.push_back(other);
  for (const BucketRule& rule : rules) {
    const GradBuffer layout = grad_buffers(*q.parameters, rule)[q.buffer];
    if (fits(layout, q)) return places_of(layout, q);
  }
  return std::nullopt;
}

std::vector<FlatPlaces> lay_out_by_size(const FlatQuestion& q) {
  std::vector<FlatPlaces> out;
  BucketRule rule = q.rule;
  rule.bucket_size = 1;
  for (size_t steps = 0; steps < kMostSteps; steps += q.parameters->size() + 1) {
    const GradBuffer layout = grad_buffers(*q.parameters, rule)[q.buffer];
    if (fits(layout, q)) {
      FlatPlaces places = places_of(layout, q);
      if (std::ranges::find(out, places) == out.end()) out.push_back(std::move(places));
    }
    // Every size up to that of the smallest bucket that was full gives the same buckets.
    std::optional<int64_t> smallest;
    for (const Bucket& b : layout.buckets)
      if (b.numel_unpadded >= rule.bucket_size)
        smallest = std::min(smallest.value_or(b.numel_unpadded), b.numel_unpadded);
    if (!smallest || *smallest == INT64_MAX) break;
    rule.bucket_size = *smallest + 1;
  }
  return out;
}

}  // namespace uckpt::megatron
