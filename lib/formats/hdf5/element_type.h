// Our element types as HDF5 datatypes, and back. Included by .cc files of this folder only.
#pragma once

#include <string>

#include "lib/formats/hdf5/handle.h"
#include "lib/tensor/dtype.h"

namespace uckpt::hdf5 {

// The little-endian datatype that elements of `dtype` are stored as. Types that HDF5 cannot describe (the
// fnuz kinds, e8m0, types under a byte) are stored as plain bytes: see stored_as_bytes.
Handle make_element_type(DType dtype);
bool stored_as_bytes(DType dtype);

// Does the HDF5 datatype alone say everything? Else an attribute names the type: for those stored as bytes,
// and for float8 e4m3, whose missing infinities HDF5 has no word for.
bool described_by_hdf5(DType dtype);

struct ElementType {
  DType dtype = DType::kU8;
  bool big_endian = false;
  std::string refusal;  // not empty: no element type of ours, and what it is
};
ElementType recognise_element_type(hid_t type);

}  // namespace uckpt::hdf5
