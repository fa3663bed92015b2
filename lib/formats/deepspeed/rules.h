// A checkpoint's own description of its tensor parallel fragments, as UCL rules.
#pragma once

#include <string>

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/universal_info.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

// A program with one layout, `deepspeed over tp`, that has a rule for each name in `catalog.ranks`, with a
// comment that says why. Names that differ in numbers only and lie alike share a rule. What no shape
// expression says becomes `catalog.scattered`, and a comment. Throws refused `deepspeed.pattern`,
// `deepspeed.affine_map`.
std::string rules_of(const UniversalInfo& info, Catalog& catalog);

// Of a checkpoint of one tensor parallel rank, whose tensors are whole: how many rows the vocabulary's have
// with their padding. Nothing tells how others are cut over more ranks. Empty where nothing is padded.
std::string rules_of_padding(const Catalog& catalog, const PaddedRows& padded);

}  // namespace uckpt::deepspeed
