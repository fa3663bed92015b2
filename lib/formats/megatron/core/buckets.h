// Optimizer states as the distributed optimizer has them in memory (`dp_reshardable`, before 0.16
// `fully_sharded_bucket_space`): each rank's buckets, flat and without names.
//
// What lies where is told by the rule of grad_buffers.h. Which layers a rank holds is not said either: as
// many as fill its buckets. Every parameter must begin and end where a chunk of its bucket does, so that a
// wrong order of parameters of different sizes is found out; buckets that are coalesced have no chunks. So
// the masters must round to the weights, too; this alone does not count against an order that is known from
// Megatron's own modules and whose sizes fit chunks. Facts: megatron-core 0.16.1
// (`sharded_param_state_dp_reshardable`, `_ParamAndGradBuffer`); how a rank's fragment lies in its tensor is
// how the model's own chunks are cut.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "lib/formats/megatron/core/unstacked.h"

namespace uckpt::megatron {

// One state of a bucket, in pieces.
struct FlatArray {
  DType dtype{};
  int64_t numel = 0;
  std::vector<FlatRun> runs;  // by rising `begin`
};
struct FlatBucket {
  int64_t numel = 0;
  std::vector<int64_t> cuts;  // where its chunks begin, rising
  std::map<std::string, FlatArray> states;
  bool is_coalesced = false;  // it is all buckets of its buffer, one after another
};

// Which optimizer, which of its groups of ranks, which buffer, which bucket.
using BucketPlace = std::tuple<int64_t, int64_t, int64_t, int64_t>;
using BucketMap = std::map<BucketPlace, FlatBucket>;

// What a rank's fragment of a parameter is, and where it lies in a bucket.
struct BucketFragment {
  BucketPlace bucket;
  int64_t start = 0;
  Shape shape;  // of the fragment
  struct Box {
    LogicalBox box;      // of the parameter
    int64_t offset = 0;  // in the fragment, elements
  };
  std::vector<Box> boxes;
  std::string replica;  // not empty: another rank's fragment has these elements, too
};
using Fragments = std::map<std::string, std::vector<BucketFragment>>;  // by parameter

// Where all parameters lie. `guessed` is not empty if the order was found by trying: then it is a parameter
// of which it is not known where its module registers it.
struct Placement {
  Fragments fragments;
  std::string guessed;
};
// Do the masters round to the weights, if the parameters lie so?
using Agrees = std::function<bool(const Fragments&)>;

// Throws refused `megatron.buckets` where the parameters fill the buckets in no order that `agrees`.
Placement place_in_buckets(const Unstacked& model, const BucketMap& buckets, const Arguments& arguments,
                           const Parallelism& mesh, const NameStyle& style, const Agrees& agrees);

// Adds a fragment's pieces of one state; nothing where the bucket lacks the state.
void add_fragment(Catalog& catalog, const BucketFragment& fragment, const BucketMap& buckets,
                  const std::string& state, const Shape& shape);

}  // namespace uckpt::megatron
