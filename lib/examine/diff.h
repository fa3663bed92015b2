// How the tensors of two checkpoints differ, in any two formats and layouts. What is no tensor (param groups,
// settings, objects) is not compared, nor are checksums: those are `verify`'s business.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/examine/name_map.h"
#include "lib/examine/opened.h"
#include "lib/kernels/differences.h"

namespace uckpt {

struct DiffOptions {
  ReadOptions read;  // of the first; its selection is by the first's names
  // Of the second, where they are said; else it is joined by the first's rules, if it is cut.
  std::string second_from;
  std::optional<RuleOptions> second_rules;
  NameMap map;                                  // from the first's names to the second's
  std::optional<kernels::Tolerance> tolerance;  // none: they must be equal bit for bit
  bool ignore_dtype = false;                    // compare numbers of two types
};

// A tensor as both have it. What one of them lacks is empty.
struct TensorPair {
  std::string path, second_path;
  DType dtype{}, second_dtype{};
  Shape shape, second_shape;
  std::string tied_to;  // of one that only one of them has: the tensor that this is a further name of there
};

// An element, and what both have there.
struct DiffPlace {
  Shape index;  // of types under a byte: of the byte
  std::string first, second;
};

struct ComparedPair : TensorPair {
  int64_t elements = 0;
  kernels::ValueDifferences found;
  std::optional<DiffPlace> largest, largest_relative, unlike, any;  // where `found` says; `any`: its first
};

struct DiffReport {
  std::vector<TensorPair> missing, extra;  // in the second; of extra ones only the second's side is told
  std::vector<TensorPair> shapes, dtypes;  // these differ, so nothing else was compared
  std::vector<ComparedPair> different;     // the worst first: not finite, then by |a - b|
  std::vector<ComparedPair> other_bits;    // equal numbers: zeros of two signs, NaNs of two kinds
  std::vector<ComparedPair> within;        // of the tolerance; the farthest apart first
  int64_t tensors = 0;                     // of the first, that were chosen
  int64_t compared = 0, elements = 0, bytes = 0;  // pairs; further names of a tensor are not read again
  int64_t same = 0;                               // bit for bit, or equal numbers of two types
  bool exact = true;                              // no tolerance: other bits are a difference
  std::vector<std::string> warnings;

  bool is_same() const;
};

// Throws what opening either throws, and what a read throws.
DiffReport diff_checkpoints(const std::string& first, const std::string& second, DiffOptions options,
                            Progress& progress, const StopFlag& stop);

}  // namespace uckpt
