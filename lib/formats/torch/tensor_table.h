// Every tensor of a pickle, rebuilt from its description by our own code and checked against its storage.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/torch/storage_table.h"
#include "lib/formats/torch/torch_file.h"
#include "lib/pickle/document.h"

namespace uckpt::torch {

class TensorTable {
 public:
  // Throws `tensor.…` for a tensor that is malformed: wrong arguments, elements outside of its storage, a
  // storage whose bytes do not divide. What is well formed and cannot be read becomes a tensor with
  // `refusal`.
  TensorTable(const pickle::Document& document, StorageTable storages, bool big_endian, int64_t max_rank);

  // Is the node a tensor, a storage, or a persistent id of another kind?
  bool has(uint32_t node) const;
  std::optional<TensorInfo> get(uint32_t node) const;

 private:
  struct Layout {  // what the pickle says about a tensor's place in its storage
    Shape shape, stride;
    int64_t offset = 0;
  };
  const TensorInfo* find(uint32_t node) const;
  TensorInfo rebuild(pickle::Known how, pickle::Value args) const;
  TensorInfo rebuild_plain(pickle::Known how, const pickle::Value& args) const;
  TensorInfo from_storage(const pickle::Value& args, std::optional<DType> dtype, size_t metadata_at) const;
  TensorInfo place(const StorageRef& ref, Layout layout, std::optional<DType> dtype) const;
  TensorInfo untyped(const pickle::Value& args) const;
  TensorInfo parameter(const pickle::Value& args, size_t arity) const;
  TensorInfo meta(const pickle::Value& args) const;
  TensorInfo bare_storage(const StorageRef& ref) const;
  TensorInfo sparse(const pickle::Value& args) const;
  TensorInfo quantised(const pickle::Value& args) const;
  TensorInfo wrapper(const pickle::Value& args) const;
  void apply_metadata(const pickle::Value& metadata, TensorInfo& info) const;
  Shape read_sizes(const pickle::Value& value, std::string_view what) const;
  Shape read_shape(const pickle::Value& value) const;
  Layout read_layout(const pickle::Value& args, size_t first) const;
  const TensorInfo* inner(const pickle::Value& value) const;

  const pickle::Document& document_;
  StorageTable storages_;
  bool big_endian_;
  int64_t max_rank_;
  std::vector<std::pair<uint32_t, TensorInfo>> tensors_;  // calls, by rising node
};

}  // namespace uckpt::torch
