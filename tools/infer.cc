// uckpt infer: the rules of an input, as text.
#include "lib/convert/infer.h"

#include <CLI/CLI.hpp>

#include "tools/options.h"
#include "tools/output.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

class Infer final : public Verb {
 public:
  std::string_view name() const override { return "infer"; }
  std::string_view summary() const override { return "Print the rules of a checkpoint's fragments as UCL"; }
  std::string_view usage() const override { return "IN"; }
  std::string_view examples() const override {
    return "  uckpt infer ckpt/ > rules.ucl                          read them, correct them, then:\n"
           "  uckpt convert --spec rules.ucl ckpt/ model.h5\n"
           "  uckpt infer --like model.safetensors ckpt/             with the shapes of a whole model's "
           "tensors\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("IN", in_, "A checkpoint: folder or file")->type_name("");
    app.add_option("--like", like_,
                   "A checkpoint of whole tensors with the same names, to compare shapes with")
        ->type_name("REF");
    open_.add(app);
  }
  int run(Out& out) override {
    require(in_, "IN");
    OpenOptions options = open_.checked();
    options.want_objects = false;
    out.print(infer_rules(in_, like_, options));
    return 0;
  }

 private:
  std::string in_, like_;
  OpenFlags open_;
};

}  // namespace

std::unique_ptr<Verb> make_infer() { return std::make_unique<Infer>(); }

}  // namespace uckpt::cli
