// Every pickle of the test data, written back: the same graph and the same view, and bytes that stay.
#include <doctest/doctest.h>

#include <filesystem>

#include "lib/base/error.h"
#include "lib/formats/torch/torch_file.h"
#include "lib/io/input.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"
#include "tests/unit/pickle/same_graph.h"

using namespace uckpt;

namespace {

Bytes write(const pickle::Value& value) {
  pickle::Pickler out;
  out.copy(value);
  return out.finish();
}

// How many files below the folder could be written back.
int check_all(const std::string& folder) {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(UCKPT_TEST_DATA "/" + folder)) {
    if (!entry.is_regular_file() || entry.path().extension() != ".pt") continue;
    const std::string name = entry.path().string();
    CAPTURE(name);
    std::unique_ptr<torch::TorchFile> file;
    Bytes once;
    try {
      file = torch::TorchFile::open(InputFile::open(name));
      once = write(file->root());
    } catch (const Error& error) {  // damaged, compressed, dangerous
      CHECK((folder == "hostile" || name.find("pt_damaged") != name.npos || name.ends_with("deflated.pt")));
      if (file) CHECK(file->refusal());
      continue;
    }
    ++count;
    const auto again = pickle::parse_whole(once, {});
    REQUIRE(pickle::graph_difference(file->root(), again->root()) == "");
    REQUIRE(write(again->root()) == once);
    if (!again->cyclic() && folder != "hostile")
      REQUIRE(pickle::to_json(file->root(), {}) == pickle::to_json(again->root(), {}));
  }
  return count;
}

}  // namespace

TEST_CASE("the pickles of DeepSpeed's files are written back") { CHECK(check_all("deepspeed") > 300); }
TEST_CASE("the pickles of torch's files are written back") { CHECK(check_all("torch") > 25); }
TEST_CASE("of hostile files, what can be read can be written back or is refused") {
  CHECK(check_all("hostile") > 10);
}
