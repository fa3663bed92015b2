// A safetensors header on any bytes: what is accepted must tile the file.
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/formats/safetensors/header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uckpt;
  try {
    const safetensors::Header header =
        safetensors::read_header(MemorySource("fuzz", Bytes(data, data + size)));
    int64_t at = 0;
    for (const auto& e : header.entries) {
      if (e.begin != at || e.end < e.begin) std::abort();
      at = e.end;
    }
    if (header.data_at + at != static_cast<int64_t>(size)) std::abort();
  } catch (const Error&) {
  }
  return 0;
}
