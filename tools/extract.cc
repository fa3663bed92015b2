// uckpt extract: one tensor to a NumPy file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "lib/base/text.h"
#include "lib/exec/read_tensor.h"
#include "lib/formats/format.h"
#include "lib/formats/npy.h"
#include "lib/io/output.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

const Tensor& tensor_called(const Catalog& catalog, const std::string& name) {
  std::vector<const Tensor*> found;
  std::vector<std::string> names;
  for (const Tensor& t : catalog.tensors) {
    if (t.path() == name) return t;
    if (t.name == name) found.push_back(&t);
    names.push_back(t.name);
  }
  if (found.size() == 1) return *found.front();
  if (found.empty()) {
    Error e = trouble("usage.tensor", "there is no such tensor").in_file(catalog.path).in_tensor(name);
    const auto near = nearest(name, names);
    throw e.hint(near ? cat("did you mean `", *near, "`?") : std::string("`uckpt ls` lists the names"));
  }
  std::string states;
  for (const Tensor* t : found) states += cat(states.empty() ? "" : ", ", t->path());
  throw trouble("usage.ambiguous", cat("the name stands for ", found.size(), " tensors: ", states))
      .in_file(catalog.path)
      .hint("name one with its state");
}

// The tensor that holds the values, or why it has none that can be read.
const Tensor& readable(const Catalog& catalog, const Tensor& tensor) {
  if (catalog.refusal) throw *catalog.refusal;
  const Tensor& stored = tensor.alias ? catalog.tensors[*tensor.alias] : tensor;
  if (!stored.refusal.empty()) {
    throw refused("tensor.refused", cat("cannot be read: ", stored.refusal))
        .in_file(catalog.path)
        .in_tensor(stored.name);
  }
  return stored;
}

// A name for the file that cannot lead anywhere: what is not plain becomes `_`.
std::string file_name_for(const std::string& tensor) {
  std::string name = tensor.substr(0, 200);
  for (char& c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
    if (!plain) c = '_';
  }
  if (name.empty() || name.front() == '.' || name.front() == '-') name.insert(0, "_");
  return name + ".npy";
}

class Extract final : public Verb {
 public:
  std::string_view name() const override { return "extract"; }
  std::string_view summary() const override { return "Write one tensor as a NumPy .npy file"; }
  std::string_view usage() const override { return "PATH NAME [-o FILE.npy]"; }
  std::string_view examples() const override {
    return "  uckpt extract ckpt/ fp32/model.norm.weight              writes fp32_model.norm.weight.npy\n"
           "  uckpt extract model.safetensors lm_head.weight -o head.npy\n"
           "  uckpt extract model.h5 exp_avg/emb.weight -o - | python3 -c "
           "'import sys, io, numpy; print(numpy.load(io.BytesIO(sys.stdin.buffer.read())))'\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint: folder or file")->type_name("");
    app.add_option("NAME", name_, "A tensor's name, or state/name")->type_name("");
    app.add_option("-o,--output", output_, "The file to make; - is standard output")->type_name("FILE");
    app.add_flag("-f,--force", force_, "Replace the file if it exists");
    app.add_flag("--raw", raw_,
                 "Keep bfloat16 and fp8 as bits (unsigned integers) instead of widening to float32");
    app.add_flag("--allow-expand", allow_expand_, "Write out a view far larger than its bytes in the input");
    rules_.add(app);
    open_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    require(name_, "NAME");
    OpenOptions options = open_.checked();
    options.want_objects = false;
    options.allow_expand = allow_expand_;
    const Catalog catalog = open_whole(path_, options, rules_.checked(), false);
    for (const std::string& w : catalog.warnings) print_warning(w);
    const Tensor& tensor = readable(catalog, tensor_called(catalog, name_));
    try {
      NpyWriter writer(tensor.dtype, tensor.shape, raw_);
      is_stdout(output_) ? to_stdout(catalog, tensor, writer, out) : to_file(catalog, tensor, writer, out);
    } catch (Error& e) {
      throw e.in_file(catalog.path).in_tensor(tensor.name);
    }
    return 0;
  }

 private:
  static void to_stdout(const Catalog& catalog, const Tensor& tensor, NpyWriter& writer, Out& out) {
    const auto print = [&](ByteSpan bytes) {
      out.print({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    };
    out.print(writer.header());
    read_tensor(catalog, tensor, [&](ByteSpan bytes) { print(writer.convert(bytes)); });
  }
  void to_file(const Catalog& catalog, const Tensor& tensor, NpyWriter& writer, Out& out) const {
    OutputFile file(output_.empty() ? file_name_for(name_) : output_, force_);
    const std::string& header = writer.header();
    auto at = static_cast<int64_t>(header.size());
    file.preallocate(at + writer.data_bytes());
    file.write_at(0, {reinterpret_cast<const uint8_t*>(header.data()), header.size()});
    read_tensor(catalog, tensor, [&](ByteSpan bytes) {
      const ByteSpan converted = writer.convert(bytes);
      file.write_at(at, converted);
      at += static_cast<int64_t>(converted.size());
    });
    file.commit(false);
    out.line(cat("wrote ", escape(file.path()), ": ", name_of(tensor.dtype), " ", shape_text(tensor.shape)));
  }

  std::string path_, name_, output_;
  bool force_ = false, raw_ = false, allow_expand_ = false;
  OpenFlags open_;
  RuleFlags rules_;
};

}  // namespace

std::unique_ptr<Verb> make_extract() { return std::make_unique<Extract>(); }

}  // namespace uckpt::cli
