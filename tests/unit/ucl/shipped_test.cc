// The specs that ship with the tool, and the importer that finds them and the files beside a program.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/ucl/importer.h"
#include "lib/ucl/printer.h"
#include "tests/unit/ucl/testing.h"

using namespace uckpt;
using namespace uckpt::ucl;
namespace fs = std::filesystem;

namespace {

const fs::path kSpecs = fs::path(UCKPT_GRAMMAR) / ".." / "samples" / "specs";

std::string said_about(const std::string& path_or_name) {
  Diagnostics diagnostics;
  open_spec(path_or_name, diagnostics);
  return diagnostics.text();
}

// The code of what is thrown, or nothing.
template <class Call>
std::string code_of(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

// An empty folder, removed with all that is in it.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "uckpt-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    folder_ = name;
  }
  ~Scratch() { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return path(name);
  }

 private:
  fs::path folder_;
};

// Is there a way over maps from one naming to another?
bool leads_to(const Spec& spec, const std::string& from, const std::string& to) {
  std::vector<std::string> reached = {from};
  for (size_t i = 0; i < reached.size(); ++i) {
    for (const std::string& next : spec.namings()) {
      if (spec.map(reached[i], next) && std::ranges::find(reached, next) == reached.end())
        reached.push_back(next);
    }
  }
  return std::ranges::find(reached, to) != reached.end();
}

// Is there a `config` between the naming, or one that a map without shapes makes of it, and another?
bool says_settings(const Spec& spec, const std::string& naming) {
  return std::ranges::any_of(spec.namings(), [&](const std::string& other) {
    return spec.config(other, naming) ||
           (spec.map(other, naming) && other.starts_with("hf_") && says_settings(spec, other));
  });
}

}  // namespace

TEST_CASE("every shipped spec is right, canonical, and the file of its name") {
  REQUIRE(shipped_specs().size() >= 9);
  for (const Shipped& s : shipped_specs()) {
    CAPTURE(s.name);
    CHECK(said_about(std::string(s.name)) == "");
    Diagnostics diagnostics;
    CHECK(print(parse(Source("", std::string(s.text)), diagnostics)) == s.text);
    CHECK(ucl::testing::read_file(kSpecs / (std::string(s.name) + ".ucl")) == s.text);
  }
  CHECK(std::ranges::is_sorted(shipped_specs(), {}, &Shipped::name));
}

TEST_CASE("every shipped layout has a way to the names of Hugging Face") {
  struct Row {
    const char *spec, *layout, *naming;
  };
  for (const Row& row : {Row{"megatron/llama", "megatron_llama", "hf_llama"},
                         {"megatron/llama_te", "megatron_llama_te", "hf_llama"},
                         {"megatron/mixtral", "megatron_mixtral", "hf_mixtral"},
                         {"megatron/mixtral_te", "megatron_mixtral_te", "hf_mixtral"},
                         {"megatron/gpt2", "megatron_gpt2", "hf_gpt2"},
                         {"megatron/gpt2_te", "megatron_gpt2_te", "hf_gpt2_lm"},
                         {"megatron_deepspeed/gpt2", "megatron_deepspeed_gpt2", "hf_gpt2"},
                         {"megatron_deepspeed/gpt2_pipe", "megatron_deepspeed_gpt2_pipe", "hf_gpt2"},
                         {"megatron_deepspeed/gpt_neox", "megatron_deepspeed_gpt_neox", "hf_gpt_neox"},
                         {"torchtitan/llama", "torchtitan_llama", "hf_llama"}}) {
    CAPTURE(row.spec);
    Diagnostics diagnostics;
    const Spec spec = open_spec(row.spec, diagnostics);
    CHECK(spec.layout(row.layout));
    CHECK(leads_to(spec, row.layout, row.naming));
    if (std::string_view(row.spec).starts_with("megatron/")) CHECK(says_settings(spec, row.naming));
  }
}

TEST_CASE("the shipped specs go together in one program") {
  const Scratch scratch;
  std::string text = "ucl 1\n";
  for (const Shipped& s : shipped_specs()) text += cat("import \"", s.name, "\"\n");
  CHECK(said_about(scratch.write("all.ucl", text)) == "");
}

TEST_CASE("imports come from the folder of the program, and from nowhere else") {
  const Scratch scratch;
  const std::string program = scratch.write("a.ucl", "ucl 1\nimport \"./b.ucl\"\nimport \"./c.ucl\"\n");
  scratch.write("b.ucl", "ucl 1\nlayout b { \"**\" replicate }\n");
  CHECK(said_about(program).find("there is no file `c.ucl` beside the program") != std::string::npos);

  fs::create_symlink("b.ucl", scratch.path("c.ucl"));
  CHECK(said_about(program).find("ucl.name_twice") != std::string::npos);
  fs::remove(scratch.path("c.ucl"));

  const Scratch elsewhere;
  fs::create_symlink(elsewhere.write("secret.ucl", "secret"), scratch.path("c.ucl"));
  CHECK(code_of([&] { said_about(program); }) == "name.escapes");
  fs::remove(scratch.path("c.ucl"));

  fs::create_directory(scratch.path("c.ucl"));
  CHECK(code_of([&] { said_about(program); }) == "io.not_regular");
}

TEST_CASE("a program is a file of a bearable size, or a shipped spec") {
  const Scratch scratch;
  CHECK(code_of([&] { said_about(scratch.path("none.ucl")); }) == "usage.spec");
  CHECK(code_of([&] { said_about(scratch.path("")); }) == "io.not_regular");
  CHECK(code_of([&] { said_about(scratch.write("long.ucl", std::string(kMaxSourceBytes + 1, ' '))); }) ==
        "ucl.limit_size");
  CHECK(said_about(scratch.write("fits.ucl", "ucl 1\n" + std::string(kMaxSourceBytes - 6, ' '))) == "");
  CHECK(said_about("megatron/llama") == "");
  try {
    said_about("megatron/lama");
    FAIL("it is not there");
  } catch (const Error& e) {
    CHECK(e.hint_text() == "did you mean `megatron/llama`?");
  }
}
