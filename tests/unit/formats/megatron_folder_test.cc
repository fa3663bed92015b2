// Which folder is meant, and what it is called: names as Megatron-LM writes them.
#include "lib/formats/megatron/rank_folder.h"
#include "megatron_support.h"

using namespace megatron_test;
using namespace uckpt::megatron;

namespace {

std::string found_in(const Scratch& s, const std::string& below = "") {
  try {
    const Folder folder = find_folder(open_target(s.path() + below));
    const std::string kind = folder.kind == FolderKind::kCore       ? "core"
                             : folder.kind == FolderKind::kPlainDcp ? "dcp"
                                                                    : "legacy";
    return cat(kind, " ", folder.name, " ", folder.iteration ? cat(*folder.iteration) : std::string("-"),
               folder.note.empty() ? "" : "; ", folder.note);
  } catch (const Error& e) {
    return s.line_of(e);
  }
}

std::vector<std::string> names(const Parallelism& p) {
  std::vector<std::string> out;
  for (const Rank& rank : ranks_of(p)) out.push_back(rank_folder_name(rank, p));
  return out;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("megatron: the tracker names the iteration") {
  const Scratch s;
  s.folder("iter_0000120/mp_rank_00");
  s.folder("iter_0000240/mp_rank_00");
  s.folder("release/mp_rank_00");
  s.write("latest_checkpointed_iteration.txt", "120");
  CHECK(found_in(s) == "legacy iter_0000120 120");
  CHECK(found_in(s, "/latest_checkpointed_iteration.txt") == "legacy iter_0000120 120");
  CHECK(found_in(s, "/iter_0000240") == "legacy iter_0000240 240");
  CHECK(found_in(s, "/iter_0000240/") == "legacy iter_0000240 240");
  s.write("latest_checkpointed_iteration.txt", " 240\n");
  CHECK(found_in(s) == "legacy iter_0000240 240");
  s.write("latest_checkpointed_iteration.txt", "release\n");
  CHECK(found_in(s) == "legacy release -");
  s.write("latest_checkpointed_iteration.txt", "360");
  CHECK(found_in(s) ==
        "megatron.no_iteration latest_checkpointed_iteration.txt: it names the iteration in iter_0000360, "
        "and no "
        "such folder is here (there is iter_0000120, iter_0000240, release)");
  for (const char* text : {"", "-1", "0x10", "12 13", "99999999999999999999", "../release", "1.5"}) {
    CAPTURE(text);
    s.write("latest_checkpointed_iteration.txt", text);
    CHECK(found_in(s).starts_with(
        "megatron.tracker latest_checkpointed_iteration.txt: expected the number of an "
        "iteration or `release`, found "));
  }
  s.write("latest_checkpointed_iteration.txt", std::string(5000, '1'));
  CHECK(found_in(s).starts_with("megatron.tracker "));
}

TEST_CASE("megatron: a root without a tracker") {
  const Scratch s;
  s.folder("other");
  CHECK(found_in(s).starts_with("megatron.no_iteration .: expected a Megatron checkpoint"));
  s.folder("iter_0000120/mp_rank_00");
  CHECK(found_in(s) ==
        "legacy iter_0000120 120; there is no latest_checkpointed_iteration.txt; iter_0000120 is the only "
        "iteration "
        "here");
  s.folder("iter_12345678");
  CHECK(found_in(s) ==
        "megatron.no_iteration .: there is no latest_checkpointed_iteration.txt, and 2 iterations are here: "
        "iter_0000120, iter_12345678");
}

TEST_CASE("megatron: how an iteration was written") {
  const Scratch s;
  s.folder("iter_0000001");
  CHECK(found_in(s) == "megatron.no_iteration iter_0000001: the folder of the iteration is empty");
  s.write("iter_0000001/.metadata", "");
  CHECK(found_in(s).starts_with("dcp iter_0000001 1"));
  s.write("iter_0000001/metadata.json", R"({"sharded_backend": "torch_dist", "sharded_backend_version": 1})");
  CHECK(found_in(s).starts_with("core iter_0000001 1"));
  s.write("iter_0000001/metadata.json",
          R"({"sharded_backend": "zarr", "common": {"sharded_backend": "torch_dist"}})");
  CHECK(found_in(s) ==
        "megatron.backend iter_0000001/metadata.json: expected the sharded backend torch_dist, found zarr");
  s.write("iter_0000001/metadata.json", "{");
  CHECK(found_in(s).starts_with("json.syntax iter_0000001/metadata.json: "));
  fs::remove(s.path() + "/iter_0000001/metadata.json");
  s.write("iter_0000001/common.pt", "");
  CHECK(found_in(s) ==
        "megatron.missing_files iter_0000001: metadata.json is missing, which belongs to `.metadata` and "
        "common.pt");
}

TEST_CASE("megatron: recognised by names alone") {
  const Scratch s;
  const auto kinds = [&](const std::string& below = "") {
    const Target target = open_target(s.path() + below);
    return cat(looks_like(target, FolderKind::kLegacy), looks_like(target, FolderKind::kCore),
               looks_like(target, FolderKind::kPlainDcp));
  };
  s.write("file.txt", "");
  CHECK(kinds() == "falsefalsefalse");
  CHECK(kinds("/file.txt") == "falsefalsefalse");
  s.write("iter_0000001/.metadata", "");
  CHECK(kinds() == "falsefalsetrue");
  CHECK(kinds("/iter_0000001") == "falsefalsetrue");
  s.write("iter_0000001/metadata.json", "{}");
  CHECK(kinds() == "falsetruefalse");
  s.write("latest_checkpointed_iteration.txt", "2");
  CHECK(kinds() == "truefalsefalse");  // it says what is wrong
  s.folder("plain");
  s.write("plain/.metadata", "");
  CHECK(kinds("/plain") == "falsefalsefalse");                  // torch's own
  CHECK(kinds("/iter_0000001/.metadata") == "falsetruefalse");  // a file stands for its own folder alone
  CHECK(kinds("/plain/.metadata") == "falsefalsefalse");
  s.write("iter_0000003/mp_rank_00/model_optim_rng.pt", "");
  s.write("iter_0000003/mp_rank_00/notes.txt", "");
  CHECK(kinds("/iter_0000003/mp_rank_00/model_optim_rng.pt") == "truefalsefalse");
  CHECK(kinds("/iter_0000003/mp_rank_00/notes.txt") == "falsefalsefalse");
  s.write("common.pt", "");
  CHECK(kinds("/common.pt") == "falsefalsefalse");  // beside the iterations: of no known meaning
}

TEST_CASE("megatron: names of iterations and ranks") {
  CHECK(iteration_folder_name(120) == "iter_0000120");
  CHECK(iteration_folder_name(123456789) == "iter_123456789");
  CHECK(iteration_of("iter_0000120") == 120);
  for (const char* name : {"iter_", "iter", "iter_-1", "iter_1x", "release", "iter_99999999999999999999"})
    CHECK(!iteration_of(name));
  CHECK(rank_numbers("mp_rank_01_002_003") == std::vector<int64_t>{1, 2, 3});
  CHECK(rank_numbers("mp_rank_123") == std::vector<int64_t>{123});
  for (const char* name :
       {"mp_rank_", "mp_rank_x", "mp_rank_00_", "mp_rank_00_1_2_3", "mp_rank_0000000000", "rank_0"})
    CHECK(rank_numbers(name).empty());
}

TEST_CASE("megatron: the ranks that write files") {
  Parallelism p;
  CHECK(names(p) == Names{"mp_rank_00"});
  p.tp = p.etp = 2;
  p.pp = 2;
  CHECK(names(p) == Names{"mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"});
  p.pp = 1;
  p.ep = 2;
  CHECK(names(p) == Names{"mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001"});
  p.pp = 2;
  p.tp = p.etp = 1;
  CHECK(names(p) ==
        Names{"mp_rank_00_000_000", "mp_rank_00_000_001", "mp_rank_00_001_000", "mp_rank_00_001_001"});
  p = {};
  p.tp = 2;
  p.ep = 4;
  CHECK(names(p) == Names{"mp_rank_00_000", "mp_rank_01_001", "mp_rank_00_002", "mp_rank_01_003"});
  CHECK(ranks_of(p)[1] == Rank{1, 0, 1, 0, true});
  CHECK(ranks_of(p)[2] == Rank{0, 0, 2, 0, false});
  p.ep = 1;
  CHECK_THROWS_WITH_AS(ranks_of(p), doctest::Contains("leave out some of the 2 tensor parallel ranks"),
                       Error);
  p.etp = 4;
  CHECK_THROWS_WITH_AS(ranks_of(p), doctest::Contains("ranks overwrote each other's files"), Error);
}
