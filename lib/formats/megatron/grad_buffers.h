// Where each parameter lies in the gradient buffers of Megatron's distributed data parallel, which are also
// the order of its distributed optimizer's states: distrib_optim.pt and `dp_reshardable` have no names, so
// this is told from the parameters alone.
//
// A rank has a buffer for each kind of parameter (dense or expert) and each element type of each virtual
// chunk. In it the parameters lie in reverse order of registration, each from a multiple of 64 elements on,
// cut into buckets whose ends are padded. The *coalesced* form, which the files hold, is the buckets without
// these end paddings, one after another; the gaps before parameters stay.
//
// Checked with the buffers of megatron-core 0.16.1: the rules are those of `_ParamAndGradBuffer`,
// `DistributedDataParallel` and `DistributedOptimizer.get_parameter_state_dp_zero`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/tensor/dtype.h"

namespace uckpt::megatron {

// What ends of buckets are padded to at least with `pad_buckets_for_high_nccl_busbw`.
inline constexpr int64_t kBusMultiple = 1 << 16;

struct GradParameter {
  int64_t numel = 0;  // of what the rank holds
  DType dtype{};      // of the module's weight
  // Of an expert, where the run has more than one expert rank: with one, experts are dense parameters.
  bool is_expert = false;
  // The embedding that the first and the last of several pipeline stages share.
  bool is_shared_embedding = false;
};

// How a buffer is cut into buckets.
struct BucketRule {
  int64_t bucket_size = 0;             // elements after which a new bucket begins; 0: there is one bucket
  bool shared_embedding_apart = true;  // a shared embedding is alone in its bucket
  int64_t end_multiple = 128;          // what ends of buckets are padded to; `end_multiple_of` tells it

  bool operator==(const BucketRule&) const = default;
};

struct Bucket {
  int64_t offset = 0;          // in the padded buffer, in elements
  int64_t coalesced = 0;       // in the coalesced form
  int64_t numel = 0;           // with the padding at its end
  int64_t numel_unpadded = 0;  // up to the end of its last parameter, or to where the next one would begin
};

struct PlacedParameter {
  size_t parameter;   // index in the list that was given
  int64_t start;      // in the padded buffer, in elements
  int64_t coalesced;  // in the coalesced form
  size_t bucket;
};

struct GradBuffer {
  bool is_expert = false;
  DType dtype{};
  std::vector<PlacedParameter> parameters;  // as they lie: last registered first
  std::vector<Bucket> buckets;
  int64_t numel = 0;           // with all padding
  int64_t numel_unpadded = 0;  // of the coalesced form

  // Of a parameter, in its bucket.
  int64_t start_in_bucket(const PlacedParameter& p) const { return p.start - buckets[p.bucket].offset; }
};

// The parameters of one virtual chunk in order of registration. Buffers come in the order in which their
// number counts: dense before expert (each of these two belongs to an optimizer of its own, whose buffers
// count from 0 through all chunks), then by the first parameter of their type. Throws refused
// (`megatron.buffer_size`) where a size is negative or the buffer's size leaves 64 bits.
std::vector<GradBuffer> grad_buffers(std::span<const GradParameter> parameters, const BucketRule& rule);

// The rule of a chunk: only the first chunk of the first stage has more than one bucket, as communication
// elsewhere is not on the critical path. `bucket_size` is what the run was given, 0 where it does not
// overlap the reduction of gradients.
BucketRule bucket_rule(int64_t stage, int64_t chunk, int64_t bucket_size);

// What ends of buckets are padded to: the least common multiple of the data parallel degree (of experts: of
// theirs), 128 and, with `pad_buckets_for_high_nccl_busbw`, 2^16. It shows only in what holds padded
// buckets: neither in the coalesced form nor in `dp_reshardable`. 0 where it leaves 64 bits.
int64_t end_multiple_of(int64_t data_parallel, bool for_bus_bandwidth);

// The bucket size that a run which overlaps the reduction of gradients takes where none is given.
inline int64_t default_bucket_size(int64_t data_parallel) {
  return data_parallel > 40 && data_parallel < (int64_t{1} << 40) ? 1'000'000 * data_parallel : 40'000'000;
}

// Other rules to try, likeliest first, where a buffer's size shows that `rule` is not the one that wrote it:
// one bucket, buckets everywhere, a shared embedding that is like any other parameter.
std::vector<BucketRule> other_rules(const BucketRule& rule, int64_t bucket_size);

}  // namespace uckpt::megatron
