// What the keys of a state dict mean: which are a model's weights, which an optimizer's states of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/dcp/stored.h"
#include "lib/formats/deepspeed/source.h"
#include "lib/pickle/value.h"

namespace uckpt::dcp {

// Where a tensor stands in the catalog.
struct TensorName {
  std::string state, name;
};

// A list that was saved as an object (an optimizer's parameter numbers, or their names), each item as text.
struct TextList {
  std::vector<std::string> texts;
  bool of_numbers = false;
};
// Nothing if there is no such object or it is no such list.
std::optional<TextList> texts_in(const pickle::Value& list);
using ReadList = std::function<std::optional<TextList>(const std::string& key)>;

// A number that an optimizer keeps for a parameter, and that was saved as an object: a step that is no
// tensor.
struct StateNumber {
  size_t object;  // into Stored::bytes
  deepspeed::Scalar value;
  TensorName name;
};
// Nothing for an object that is no number.
using ReadNumber = std::function<std::optional<deepspeed::Scalar>(const StoredBytes& object)>;
struct Naming {
  std::vector<TensorName> tensors;  // parallel to Stored::tensors
  std::vector<StateNumber> numbers;
};

// Parallel to `stored.tensors`. Weights of a model under `model` (or whatever container it is that an
// optimizer's states speak of) lose that prefix and are of state "param"; `….state.NAME.STATE` is of state
// STATE and named NAME, also where it is one flattened key, and where NAME is a number that the parameter
// list, or else the order of shapes, resolves. What belongs to no parameter is "other", under its whole key.
// Objects are read only where an optimizer has its states.
Naming name_all(const Stored& stored, const ReadList& read_list, const ReadNumber& read_number,
                std::vector<std::string>& warnings);
std::vector<TensorName> name_tensors(const Stored& stored, const ReadList& read_list,
                                     std::vector<std::string>& warnings);

}  // namespace uckpt::dcp
