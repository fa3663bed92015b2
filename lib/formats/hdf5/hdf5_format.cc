#include "lib/formats/hdf5/hdf5_format.h"

#include <algorithm>
#include <array>

#include "lib/formats/hdf5/survey.h"
#include "lib/formats/hdf5/survey_catalog.h"

namespace uckpt::hdf5 {
namespace {

constexpr std::array<uint8_t, 8> kSignature = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
constexpr int64_t kFirstUserBlock = 512, kLastUserBlock = 1 << 20;

bool signature_at(const Target& target, int64_t offset) {
  std::array<uint8_t, kSignature.size()> bytes{};
  if (offset > target.file->size() - static_cast<int64_t>(bytes.size())) return false;
  target.file->read_at(offset, bytes);
  return bytes == kSignature;
}

}  // namespace

// The superblock is the first thing in the file, or behind a user block of 512 bytes times a power of two.
bool recognises(const Target& target) {
  if (!target.file) return false;
  if (target.head.size() >= kSignature.size() &&
      std::equal(kSignature.begin(), kSignature.end(), target.head.begin()))
    return true;
  try {
    for (int64_t offset = kFirstUserBlock; offset <= kLastUserBlock; offset *= 2)
      if (signature_at(target, offset)) return true;
  } catch (const Error&) {  // unreadable: whoever reads it next will say so
  }
  return false;
}

Catalog read(const Target& target, const OpenOptions& options) try {
  if (!target.file) throw trouble("hdf5.not_a_file", "expected an HDF5 file, found a folder");
  const Survey survey = survey_file(target.file->name());
  return catalog_of(survey, target.file, {options.want_objects, options.limits.json_bytes});
} catch (Error& error) {
  throw error.in_file(target.path);
}

}  // namespace uckpt::hdf5
