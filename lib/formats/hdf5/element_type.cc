#include "lib/formats/hdf5/element_type.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "lib/base/text.h"

namespace uckpt::hdf5 {
namespace {

// Bit positions as H5Tset_fields takes them: IEEE-like, sign first, implied leading one.
struct FloatForm {
  DType dtype;
  size_t bytes, exponent_at, exponent_bits, mantissa_bits, bias;
};
constexpr std::array kFloatForms = {
    FloatForm{DType::kF16, 2, 10, 5, 10, 15},  FloatForm{DType::kBF16, 2, 7, 8, 7, 127},
    FloatForm{DType::kF32, 4, 23, 8, 23, 127}, FloatForm{DType::kF64, 8, 52, 11, 52, 1023},
    FloatForm{DType::kF8E4M3, 1, 3, 4, 3, 7},  FloatForm{DType::kF8E5M2, 1, 2, 5, 2, 15},
};

Handle copy_type(hid_t predefined) { return checked(H5Tcopy(predefined), "copy a datatype"); }

Handle make_float(DType dtype) {
  const FloatForm& form = *std::ranges::find(kFloatForms, dtype, &FloatForm::dtype);
  Handle type = copy_type(H5T_IEEE_F64LE);
  const size_t bits = form.bytes * 8;
  checked_call(H5Tset_fields(type, bits - 1, form.exponent_at, form.exponent_bits, 0, form.mantissa_bits),
               "set the fields of a float type");
  checked_call(H5Tset_ebias(type, form.bias), "set the exponent bias of a float type");
  checked_call(H5Tset_precision(type, bits), "set the precision of a float type");
  checked_call(H5Tset_size(type, form.bytes), "set the size of a float type");
  return type;
}

// What h5py writes for numpy's bool.
Handle make_bool() {
  Handle type = checked(H5Tenum_create(H5T_STD_I8LE), "make the boolean type");
  int8_t value = 0;
  checked_call(H5Tenum_insert(type, "FALSE", &value), "make the boolean type");
  value = 1;
  checked_call(H5Tenum_insert(type, "TRUE", &value), "make the boolean type");
  return type;
}

// What h5py writes for numpy's complex.
Handle make_complex(DType part) {
  const Handle number = make_float(part);
  const size_t size = H5Tget_size(number);
  Handle type = checked(H5Tcreate(H5T_COMPOUND, 2 * size), "make a complex type");
  checked_call(H5Tinsert(type, "r", 0, number), "make a complex type");
  checked_call(H5Tinsert(type, "i", size, number), "make a complex type");
  return type;
}

ElementType unknown(std::string what) { return {DType::kU8, false, std::move(what)}; }

bool byte_order(hid_t type, bool& big_endian) {
  const H5T_order_t order = H5Tget_order(type);
  big_endian = order == H5T_ORDER_BE;
  return order == H5T_ORDER_LE || order == H5T_ORDER_BE || H5Tget_size(type) == 1;
}

ElementType recognise_integer(hid_t type) {
  constexpr std::array kSigned = {DType::kI8, DType::kI16, DType::kI32, DType::kI64};
  constexpr std::array kUnsigned = {DType::kU8, DType::kU16, DType::kU32, DType::kU64};
  const size_t size = H5Tget_size(type);
  const size_t width = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : size == 8 ? 3 : 4;
  ElementType found;
  if (width == 4 || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0 ||
      !byte_order(type, found.big_endian))
    return unknown(cat("integers of ", H5Tget_precision(type), " bits in ", size, " bytes"));
  found.dtype = H5Tget_sign(type) == H5T_SGN_NONE ? kUnsigned[width] : kSigned[width];
  return found;
}

ElementType recognise_float(hid_t type) {
  size_t sign = 0, exponent_at = 0, exponent_bits = 0, mantissa_at = 0, mantissa_bits = 0;
  checked_call(H5Tget_fields(type, &sign, &exponent_at, &exponent_bits, &mantissa_at, &mantissa_bits),
               "read a float type");
  const size_t size = H5Tget_size(type);
  ElementType found;
  const auto form = std::ranges::find_if(kFloatForms, [&](const FloatForm& f) {
    return size == f.bytes && sign == 8 * size - 1 && exponent_at == f.exponent_at &&
           exponent_bits == f.exponent_bits && mantissa_at == 0 && mantissa_bits == f.mantissa_bits &&
           H5Tget_ebias(type) == f.bias;
  });
  if (form == kFloatForms.end() || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0 ||
      H5Tget_norm(type) != H5T_NORM_IMPLIED || !byte_order(type, found.big_endian))
    return unknown(cat("floats of ", size, " bytes with ", exponent_bits, " exponent and ", mantissa_bits,
                       " mantissa bits"));
  found.dtype = form->dtype;
  return found;
}

bool enum_member_is(hid_t type, unsigned index, std::string_view expected_name, int8_t expected) {
  int8_t value = -1;
  char* name = H5Tget_member_name(type, index);
  const bool same =
      name && name == expected_name && H5Tget_member_value(type, index, &value) >= 0 && value == expected;
  H5free_memory(name);
  return same;
}

ElementType recognise_enum(hid_t type) {
  const bool is_bool = H5Tget_size(type) == 1 && H5Tget_nmembers(type) == 2 &&
                       enum_member_is(type, 0, "FALSE", 0) && enum_member_is(type, 1, "TRUE", 1);
  return is_bool ? ElementType{DType::kBool, false, {}} : unknown("an enumeration");
}

bool member_named(hid_t type, unsigned index, std::string_view expected) {
  char* name = H5Tget_member_name(type, index);
  const bool same = name && name == expected;
  H5free_memory(name);
  return same;
}

// Two floats of one kind, real part first.
ElementType recognise_compound(hid_t type) {
  if (H5Tget_nmembers(type) != 2 || !member_named(type, 0, "r") || !member_named(type, 1, "i"))
    return unknown("a compound");
  const Handle real = checked(H5Tget_member_type(type, 0), "read a compound type");
  const Handle imaginary = checked(H5Tget_member_type(type, 1), "read a compound type");
  const size_t size = H5Tget_size(real);
  if (H5Tget_class(real) != H5T_FLOAT || H5Tequal(real, imaginary) <= 0 || H5Tget_size(type) != 2 * size ||
      H5Tget_member_offset(type, 0) != 0 || H5Tget_member_offset(type, 1) != size)
    return unknown("a compound");
  ElementType found = recognise_float(real);
  if (!found.refusal.empty()) return found;
  switch (found.dtype) {
    case DType::kF16:
      found.dtype = DType::kC32;
      return found;
    case DType::kF32:
      found.dtype = DType::kC64;
      return found;
    case DType::kF64:
      found.dtype = DType::kC128;
      return found;
    default:
      return unknown("a compound");
  }
}

std::string_view class_name(H5T_class_t kind) {
  switch (kind) {
    case H5T_TIME:
      return "times";
    case H5T_STRING:
      return "text";
    case H5T_BITFIELD:
      return "bit fields";
    case H5T_OPAQUE:
      return "opaque bytes";
    case H5T_REFERENCE:
      return "references";
    case H5T_VLEN:
      return "lists of variable length";
    case H5T_ARRAY:
      return "arrays";
    default:
      return "of a kind unknown to this version";
  }
}

}  // namespace

bool stored_as_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz:
    case DType::kF8E8M0:
    case DType::kF4:
    case DType::kF6E2M3:
    case DType::kF6E3M2:
      return true;
    default:
      return false;
  }
}

bool described_by_hdf5(DType dtype) { return !stored_as_bytes(dtype) && dtype != DType::kF8E4M3; }

Handle make_element_type(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return make_bool();
    case DType::kI8:
      return copy_type(H5T_STD_I8LE);
    case DType::kU16:
      return copy_type(H5T_STD_U16LE);
    case DType::kI16:
      return copy_type(H5T_STD_I16LE);
    case DType::kU32:
      return copy_type(H5T_STD_U32LE);
    case DType::kI32:
      return copy_type(H5T_STD_I32LE);
    case DType::kU64:
      return copy_type(H5T_STD_U64LE);
    case DType::kI64:
      return copy_type(H5T_STD_I64LE);
    case DType::kF16:
    case DType::kBF16:
    case DType::kF32:
    case DType::kF64:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
      return make_float(dtype);
    case DType::kC32:
      return make_complex(DType::kF16);
    case DType::kC64:
      return make_complex(DType::kF32);
    case DType::kC128:
      return make_complex(DType::kF64);
    default:
      return copy_type(H5T_STD_U8LE);
  }
}

ElementType recognise_element_type(hid_t type) {
  switch (const H5T_class_t kind = H5Tget_class(type)) {
    case H5T_INTEGER:
      return recognise_integer(type);
    case H5T_FLOAT:
      return recognise_float(type);
    case H5T_ENUM:
      return recognise_enum(type);
    case H5T_COMPOUND:
      return recognise_compound(type);
    default:
      return unknown(std::string(class_name(kind)));
  }
}

}  // namespace uckpt::hdf5
