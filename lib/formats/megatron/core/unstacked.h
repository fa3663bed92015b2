// The logical tensors of a Megatron-core checkpoint: stacks of layers and experts taken apart, gate and up
// put together, flattened optimizer states given their boxes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/formats/dcp/saved.h"
#include "lib/formats/megatron/core/names.h"

namespace uckpt::megatron {

// A part of a stored tensor that is a logical tensor, or a half of it along its first dim.
struct StoredPart {
  size_t stored;                 // index in dcp::Stored::tensors
  std::vector<int64_t> numbers;  // on its leading axes
  int64_t half = -1;             // 0: gate, 1: up
};

struct Logical {
  std::string state, name;
  DType dtype{};
  Shape shape;
  std::vector<StoredPart> parts;  // one, or two halves
  std::string layout;             // for people
};

// A box of a logical tensor, in elements.
struct LogicalBox {
  Shape offsets, sizes;
};

class Unstacked {
 public:
  // `is_plain`: keys as torch writes them ("model.NAME", "optimizer.state.NAME.STATE"). Throws refused
  // `megatron.stack` for a stack with fewer dims than its key says, `megatron.flattened` for states that are
  // neither like their weight nor cut as flattened ones are, `limit.tensors` for more tensors than can be.
  Unstacked(const dcp::Stored& stored, const NameStyle& style, bool is_plain);

  // Layer by layer, each in the order of the keys. Weights are of state "param", also those that the
  // optimizer keeps in fp32, and what is no parameter of state "buffer".
  std::vector<Logical>& all() { return all_; }
  const std::vector<Logical>& all() const { return all_; }
  // Indices of stored tensors that are none of these: buckets of optimizer state, and what else there is.
  const std::vector<size_t>& others() const { return others_; }

  // Calls `see` for each chunk's box of the tensor; of states that lie flattened there are none.
  void each_box(const Logical& tensor, const std::function<void(const LogicalBox&)>& see) const;
  // Adds the pieces of the tensor to the catalog.
  void add_pieces(const Logical& tensor, dcp::CatalogBuilder& builder, Catalog& catalog,
                  std::vector<std::vector<dcp::ItemTensor>>& items) const;

 private:
  struct Stack {  // of a stored tensor
    size_t axes = 0;
    std::map<std::vector<int64_t>, std::vector<size_t>> chunks;  // by the numbers on the leading axes
    Shape blocks;  // of flattened states: the sizes of the blocks, leading axes too; else empty
  };
  void add(size_t stored, const std::string& state, const std::string& key, const NameStyle& style);
  void find_blocks(size_t stored, const StoredPart& like);
  void add_flattened(const Logical& tensor, const StoredPart& part, dcp::CatalogBuilder& builder,
                     Catalog& catalog, std::vector<std::vector<dcp::ItemTensor>>& items) const;
  void sort();

  const dcp::Stored& stored_;
  std::vector<Stack> stacks_;  // parallel to stored.tensors
  std::vector<Logical> all_;
  std::vector<size_t> others_;
  std::map<std::pair<std::string, std::string>, size_t> index_;  // by state and name
  std::map<std::string, size_t> model_keys_;
  std::map<std::string, size_t> prefixes_;                      // of stacks, in order of appearance
  std::vector<std::pair<std::vector<int64_t>, size_t>> order_;  // parallel to all_
};

// The elements [begin, end) of a flat run, which is a row-major part of a tensor, lie back to back at a
// place. The box with its strides and origin says which elements of the tensor the part has where.
struct FlatRun {
  FileId file;
  uint32_t record;
  int64_t offset;  // bytes, of element `begin`
  uint8_t flags;
  int64_t begin, end;
};
void add_flat_box(Catalog& catalog, const FlatRun& run, DType dtype, const Shape& tensor,
                  const LogicalBox& box, const Shape& strides, int64_t origin);

}  // namespace uckpt::megatron
