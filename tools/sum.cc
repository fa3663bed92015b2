// uckpt sum: the digest of every tensor, whatever the layout.
#include "lib/examine/sum.h"

#include <CLI/CLI.hpp>

#include "lib/base/text.h"
#include "lib/io/output.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/signals.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

std::string json_of(const std::string& path, const std::vector<TensorSum>& sums) {
  std::string text = cat("{\"uckpt\": 1,\n \"path\": ", json_string(path), ",\n \"sums\": [");
  for (size_t i = 0; i < sums.size(); ++i)
    text += cat(i > 0 ? "," : "", "\n  {\"path\": ", json_string(sums[i].path), ", \"dtype\": \"",
                name_of(sums[i].dtype), "\", \"shape\": ", shape_text(sums[i].shape), ", \"digest\": \"",
                sums[i].digest, "\"}");
  return text + "]}\n";
}

class Sum final : public Verb {
 public:
  std::string_view name() const override { return "sum"; }
  std::string_view summary() const override {
    return "Digest every tensor: the same in every format and layout";
  }
  std::string_view usage() const override { return "PATH"; }
  std::string_view examples() const override {
    return "  uckpt sum ckpt/ -o before.txt                      then `uckpt verify model.h5 --against "
           "before.txt`\n"
           "  uckpt sum --sha256 model.safetensors\n"
           "  uckpt sum --states fp32 ckpt/global_step1000\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint: folder or file")->type_name("");
    app.add_option("-o,--output", output_, "The manifest to make (by default, and for -, it is printed)")
        ->type_name("FILE");
    app.add_flag("-f,--force", force_, "Replace the manifest if it exists");
    app.add_flag("--sha256", sha256_, "SHA-256 in place of CRC-64: finds forgery too, takes a second pass");
    app.add_flag("--json", json_, "Answer in JSON");
    read_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    const ReadOptions options = read_.checked();
    const auto progress = read_.start();
    const Opened opened = open_to_read(path_, options);
    for (const std::string& w : opened.catalog.warnings) progress->warn(w);
    std::vector<TensorSum> sums = sum_tensors(opened, sha256_ ? DigestKind::kSha256 : DigestKind::kCrc64,
                                              options.buffers(opened.catalog), *progress, stop_on_signals());
    const std::string text = json_ ? json_of(path_, sums) : manifest_text(std::move(sums));
    output_.empty() || is_stdout(output_) ? out.print(text) : write_text_file(output_, text, force_, true);
    return 0;
  }

 private:
  std::string path_, output_;
  bool force_ = false, sha256_ = false, json_ = false;
  ReadFlags read_;
};

}  // namespace

std::unique_ptr<Verb> make_sum() { return std::make_unique<Sum>(); }

}  // namespace uckpt::cli
