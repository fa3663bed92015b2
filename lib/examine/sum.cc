#include "lib/examine/sum.h"

#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "lib/base/text.h"
#include "lib/exec/workers.h"

namespace uckpt {

namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) fail();
  }
  void add(ByteSpan bytes) {
    if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) fail();
  }
  std::string finish() {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (EVP_DigestFinal_ex(context_.get(), digest, &length) != 1) fail();
    std::string text = "sha256:";
    for (unsigned i = 0; i < length; ++i) text += hex(digest[i], 2);
    return text;
  }

 private:
  [[noreturn]] static void fail() { throw trouble("sha256", "libcrypto cannot compute SHA-256"); }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// Each tensor from its first byte to its last; tensors side by side.
std::vector<std::string> sha256_of(const exec::WholeTensors& whole, const exec::Buffers& buffers,
                                   Progress& progress, const StopFlag& stop) {
  std::vector<std::string> digests(whole.layout.holes.size());
  progress.begin("hashing", whole.plan.bytes_out);
  exec::run_workers(buffers.threads, digests.size(), stop, [&] {
    return [&, reader = std::make_shared<exec::RangeReader>(whole, buffers),
            buffer = Bytes()](size_t i) mutable {
      const Hole& hole = whole.layout.holes[i];
      const int64_t item = unit_size(hole.dtype), step = std::max<int64_t>(1, buffers.task_bytes / item);
      Sha256 sha;
      for (int64_t at = 0; at < hole.count; at += step) {
        buffer.resize(static_cast<size_t>(std::min(step, hole.count - at) * item));
        reader->read(static_cast<uint32_t>(i), at, buffer);
        sha.add(buffer);
        progress.advance(static_cast<int64_t>(buffer.size()));
      }
      digests[i] = sha.finish();
    };
  });
  progress.end();
  return digests;
}

}  // namespace

std::vector<TensorSum> sums_of(const Opened& opened, const std::vector<std::string>& digests) {
  std::vector<TensorSum> out;
  const SumPaths paths(opened.catalog, opened.tensors);
  for (size_t i = 0; i < opened.tensors.size(); ++i) {
    const Tensor& t = opened.tensor(i);
    out.push_back({paths.of(t), t.dtype, t.shape, digests[opened.stored_at[i]]});
  }
  return out;
}

std::vector<TensorSum> sum_tensors(const Opened& opened, DigestKind kind, const exec::Buffers& buffers,
                                   Progress& progress, const StopFlag& stop) {
  const exec::WholeTensors whole =
      exec::whole_tensors(opened.catalog, opened.stored, {.check_crc = true, .compare_copies = false});
  exec::Scanned found = exec::scan(whole, buffers, {"reading", true}, {}, progress, stop);
  if (!found.damaged.empty()) throw found.damaged.front();
  std::vector<std::string> digests;
  if (kind == DigestKind::kSha256) {
    digests = sha256_of(whole, buffers, progress, stop);
  } else {
    for (const uint64_t digest : found.digests) digests.push_back(crc64_text(digest));
  }
  return sums_of(opened, digests);
}

}  // namespace uckpt
