// HDF5 files of any bytes, read through the real sandbox: the parent neither dies nor hangs, whatever the
// library does.
#include <stdlib.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "lib/base/error.h"
#include "lib/formats/hdf5/hdf5_format.h"
#include "tests/fuzz/check_catalog.h"

namespace {

using namespace uckpt;

constexpr int64_t kMostRead = 1 << 20;  // bytes of a tensor, decoded

// In memory, and by a name that the child can open, which keeps none of our descriptors.
struct TempFile {
  std::string path = "/dev/shm/uckpt-fuzz-XXXXXX";
  int fd = ::mkstemp(path.data());
  TempFile() {
    if (fd < 0) std::abort();
  }
  ~TempFile() { ::unlink(path.c_str()); }
};

void write_file(int fd, const uint8_t* data, size_t size) {
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
}

void read_ends(const Catalog& catalog, const Tensor& t) {
  if (!t.refusal.empty() || bytes_of(t) > kMostRead) return;
  for (const Piece& p : catalog.pieces_of(t.pieces)) {
    if (p.file == kLiteral) continue;
    int64_t last = p.offset;
    for (const Axis& a : catalog.axes_of(p)) {
      if (a.extent == 0) return;
      last += (a.extent - 1) * a.stride * unit_size(t.dtype);
    }
    for (const int64_t at : {p.offset, last}) catalog.files.at(p.file)->read_range(at, unit_size(t.dtype));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TempFile file;
  write_file(file.fd, data, size);
  try {
    const Target target = open_target(file.path);
    hdf5::recognises(target);
    const Catalog catalog = hdf5::read(target, {});
    check_catalog(catalog);
    for (const Tensor& t : catalog.tensors) try {
        read_ends(catalog, t);
      } catch (const Error&) {
      }
  } catch (const Error&) {
  }
  return 0;
}
