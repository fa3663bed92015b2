#include "lib/formats/megatron/grad_buffers.h"

#include <algorithm>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::megatron {

namespace {

constexpr int64_t kParameterMultiple = 64, kBucketMultiple = 128;

[[noreturn]] void throw_too_large() {
  throw refused("megatron.buffer_size",
                "expected gradient buffers whose elements 64 bits can count, found larger parameters");
}

int64_t plus(int64_t a, int64_t b) {
  const auto sum = checked_add(a, b);
  if (!sum) throw_too_large();
  return *sum;
}

int64_t padded(int64_t at, int64_t multiple) {
  const int64_t rest = at % multiple;
  return rest == 0 ? at : plus(at, multiple - rest);
}

// Places the parameters of one buffer, in the order in which they are given.
class Placer {
 public:
  Placer(GradBuffer& buffer, const BucketRule& rule) : buffer_(buffer), rule_(rule) {}

  void place(size_t index, const GradParameter& p) {
    const bool is_apart = p.is_shared_embedding && rule_.shared_embedding_apart;
    at_ = padded(at_, kParameterMultiple);
    if (is_apart && !is_empty_) close_bucket();
    buffer_.parameters.push_back({index, at_, 0, buffer_.buckets.size()});
    is_empty_ = false;
    at_ = plus(at_, p.numel);
    if (is_apart || (rule_.bucket_size > 0 && at_ - bucket_start_ >= rule_.bucket_size)) close_bucket();
  }

  void finish() {
    if (!is_empty_) close_bucket();
    buffer_.numel = at_;
    for (PlacedParameter& p : buffer_.parameters)
      p.coalesced = buffer_.buckets[p.bucket].coalesced + buffer_.start_in_bucket(p);
  }

 private:
  // What was padded for a parameter that begins the next bucket counts as a part of this one.
  void close_bucket() {
    const int64_t end = padded(at_, rule_.end_multiple), unpadded = at_ - bucket_start_;
    buffer_.buckets.push_back({bucket_start_, buffer_.numel_unpadded, end - bucket_start_, unpadded});
    buffer_.numel_unpadded += unpadded;
    bucket_start_ = at_ = end;
    is_empty_ = true;
  }

  GradBuffer& buffer_;
  const BucketRule& rule_;
  int64_t at_ = 0, bucket_start_ = 0;
  bool is_empty_ = true;  // the bucket that is being filled
};

// Their kinds and types, in the order in which buffers count.
std::vector<GradBuffer> kinds_of(std::span<const GradParameter> parameters) {
  std::vector<GradBuffer> out;
  for (const bool is_expert : {false, true}) {
    for (const GradParameter& p : parameters) {
      const auto same = [&](const GradBuffer& b) { return b.is_expert == is_expert && b.dtype == p.dtype; };
      if (p.is_expert != is_expert || std::any_of(out.begin(), out.end(), same)) continue;
      out.push_back({.is_expert = is_expert, .dtype = p.dtype, .parameters = {}, .buckets = {}});
    }
  }
  return out;
}

}  // namespace

std::vector<GradBuffer> grad_buffers(std::span<const GradParameter> parameters, const BucketRule& rule) {
  if (rule.end_multiple < 1) throw_too_large();
  std::vector<GradBuffer> out = kinds_of(parameters);
  for (GradBuffer& buffer : out) {
    Placer placer(buffer, rule);
    for (size_t i = parameters.size(); i-- > 0;) {
      const GradParameter& p = parameters[i];
      if (p.is_expert != buffer.is_expert || p.dtype != buffer.dtype) continue;
      if (p.numel < 0) throw_too_large();
      placer.place(i, p);
    }
    placer.finish();
  }
  return out;
}

BucketRule bucket_rule(int64_t stage, int64_t chunk, int64_t bucket_size) {
  BucketRule rule;
  if (stage == 0 && chunk == 0) rule.bucket_size = bucket_size;
  return rule;
}

int64_t end_multiple_of(int64_t data_parallel, bool for_bus_bandwidth) {
  const int64_t base = for_bus_bandwidth ? kBusMultiple : kBucketMultiple;
  if (data_parallel < 1) return base;
  return checked_mul(data_parallel / std::gcd(data_parallel, base), base).value_or(0);
}

std::vector<BucketRule> other_rules(const BucketRule& rule, int64_t bucket_size) {
  std::vector<BucketRule> out;
  for (const bool apart : {rule.shared_embedding_apart, !rule.shared_embedding_apart}) {
    for (const int64_t size : {rule.bucket_size, int64_t{0}, bucket_size}) {
      const BucketRule other{size, apart, rule.end_multiple};
      if (other != rule && std::find(out.begin(), out.end(), other) == out.end()) out.push_back(other);
    }
  }
  return out;
}

}  // namespace uckpt::megatron
