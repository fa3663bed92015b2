// Names of classes and functions in a pickle, and what they mean to us. Nothing is ever looked up or called.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/tensor/catalog.h"
#include "lib/tensor/dtype.h"

namespace uckpt::pickle {

// The globals that our own code gives a meaning to. Being named here does not make a global "known" in the
// report: quantised and sparse tensors have a meaning (they are refused by name) and are still foreign.
enum class Known : uint8_t {
  kNone,        // no meaning: an opaque node
  kPlainClass,  // a class of a checkpoint format: a typed node with attributes, nothing to interpret
  // torch
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kRebuildParameterWithState,
  kRebuildMeta,
  kRebuildFromType,
  kRebuildSparse,
  kRebuildQuantised,
  kRebuildWrapper,
  kRebuildNested,
  kDistributedTensor,
  kStorage,
  kUntypedStorage,
  kTypedStorage,
  kDtype,
  kTensorClass,
  kSize,
  kDevice,
  kGetLayout,
  // containers and values of the language
  kDict,
  kOrderedDict,
  kDefaultDict,
  kCounter,
  kList,
  kTuple,
  kSet,
  kFrozenSet,
  kBytesClass,
  kByteArray,
  kComplex,
  kSlice,
  kRange,
  kObjectClass,
  kEncode,
  kReconstructor,
  kNewObjFunction,
  kNewObjExFunction,
  kNamespace,
  kPath,
  kBytesIO,
  // numpy
  kNumpyDtype,
  kNumpyArrayClass,
  kNumpyReconstruct,
  kNumpyScalar,
  kNumpyFromBuffer,
};

struct Global {
  std::string full;    // "module.name", as Python 3 has them
  size_t module_size;  // full.substr(0, module_size) is the module
  GlobalClass trust = GlobalClass::kUnknown;
  Known known = Known::kNone;
  std::optional<DType> dtype;  // kStorage, kDtype where we have the type
  std::string_view module() const { return std::string_view(full).substr(0, module_size); }
  std::string_view name() const { return std::string_view(full).substr(module_size + 1); }
};

// Names compare whole, byte for byte. Before protocol 3 they are Python 2's. A dot in `name` makes the global
// dangerous, unless it is a nested class; before protocol 4 there are no dots, `getattr` is called for them.
Global make_global(std::string_view module, std::string_view name, int protocol = 2);

// A class in a class, "Outer.Mode". By the names alone, and strictly: with a small letter or `__` at the
// beginning a part might be a module, or a method that does what it likes (`os.system`, `Path.write_text`).
// One method is as harmless: it is how Python pickles time zones.
bool is_nested_class(std::string_view module, std::string_view name);
inline constexpr size_t kMostNested = 8;

// The class in module torch whose storages hold such elements ("FloatStorage"); empty if there is none.
std::string_view storage_class(DType dtype);

}  // namespace uckpt::pickle
