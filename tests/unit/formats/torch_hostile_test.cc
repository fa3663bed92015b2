// The hostile files that concern torch.save: each gets its manifest's verdict, as far as a catalog can give
// it.
#include "tests/unit/formats/torch_support.h"

using namespace torch_test;

namespace {

// "reject: code", "inspect-only: why", or "accept".
std::string verdict(const std::string& path, Catalog& catalog) {
  try {
    catalog = read_catalog(path);
  } catch (const Error& e) {
    return e.exit_code() == 1 ? cat("reject: ", e.code()) : cat("trouble: ", e.code());
  }
  if (catalog.refusal) return cat("inspect-only: ", catalog.refusal->code());
  for (const Tensor& tensor : catalog.tensors)
    if (!tensor.refusal.empty()) return cat("inspect-only: ", tensor.refusal);
  return "accept";
}

std::vector<double> flat_numbers(const nlohmann::json& values) {
  if (values.is_array() && !values.empty() && values[0].is_array()) {
    std::vector<double> out;
    for (const auto& row : values)
      for (double v : flat_numbers(row)) out.push_back(v);
    return out;
  }
  return values.get<std::vector<double>>();
}

void check_values(const Catalog& catalog, const nlohmann::json& values) {
  for (const auto& [key, numbers] : values.items()) {
    const std::string& wanted = key;
    CAPTURE(wanted);
    const auto found = std::ranges::find(catalog.tensors, wanted, &Tensor::name);
    REQUIRE(found != catalog.tensors.end());
    const Bytes bytes = tensor_bytes(catalog, *found);
    const auto want = flat_numbers(numbers);
    REQUIRE(found->dtype == DType::kF32);
    REQUIRE(bytes.size() == want.size() * sizeof(float));
    for (size_t i = 0; i < want.size(); ++i)
      CHECK(load_le<float>(bytes.data() + 4 * i) == static_cast<float>(want[i]));
  }
}

}  // namespace

TEST_CASE("hostile torch files") {
  const auto manifest = read_json(data("hostile/manifest.json"));
  int seen = 0;
  for (const auto& entry : manifest) {
    const std::string file = entry["file"];
    const std::string room = file.substr(0, file.find('/'));
    if (room != "pickle" && room != "tensor" && room != "zip" && room != "legacy" && room != "name") continue;
    ++seen;
    CAPTURE(file);
    CAPTURE(entry["why"].get<std::string>());
    Catalog catalog;
    const std::string got = verdict(data("hostile/" + file), catalog);
    CAPTURE(got);
    const std::string expect = entry["expect"];
    const bool may_convert = entry.contains("convert") && entry["convert"] == "either";
    if (entry.contains("refuse_targets")) {
      CHECK(got == "accept");  // a target's matter
    } else if (expect == "accept") {
      CHECK(got == "accept");
    } else if (may_convert) {
      CHECK((got == "accept" || got.starts_with(expect)));
    } else {
      CHECK(got.starts_with(expect));
    }
    if (entry.contains("values")) check_values(catalog, entry["values"]);
  }
  CHECK(seen == 120);
}

TEST_CASE("hostile torch files: the reasons are the right ones") {
  const std::map<std::string, std::string> reasons = {
      {"pickle/reduce_os_system.pt", "inspect-only: pickle.dangerous"},
      {"pickle/reduce_popmark.pt", "inspect-only: pickle.dangerous"},
      {"pickle/reduce_builtins_exec.pt", "inspect-only: pickle.dangerous"},
      {"pickle/stack_global_dotted.pt", "inspect-only: pickle.dangerous"},
      {"pickle/torch_prefix_hub.pt", "inspect-only: pickle.dangerous"},
      {"pickle/build_setstate.pt", "inspect-only: pickle.dangerous"},
      {"pickle/ext1.pt", "reject: pickle.extension"},
      {"pickle/second_pickle_after_stop.pt", "reject: pickle.trailing"},
      {"pickle/name_trailing_space.pt",
       "inspect-only: a tensor inside the unknown class torch._utils._rebuild_tensor_v2 "},
      {"pickle/trunc_empty.pt", "reject: pickle.truncated"},
      {"pickle/proto_6.pt", "reject: pickle.protocol"},
      {"pickle/frame_past_end.pt", "reject: pickle.truncated"},
      {"pickle/frame_short2.pt", "reject: pickle.frame"},
      {"pickle/global_60k.pt", "reject: limit.global_name"},
      {"pickle/deep_list.pt", "reject: limit.depth"},
      {"pickle/deep_reduce.pt", "reject: limit.depth"},
      {"pickle/laughs_lists.pt", "inspect-only: limit.json_bytes"},
      {"pickle/cycle_list.pt", "inspect-only: torch.no_tensors"},
      {"pickle/cycle_tuple.pt", "inspect-only: torch.no_tensors"},
      {"tensor/oob_by_one.pt", "reject: tensor.out_of_bounds"},
      {"tensor/offset_negative.pt", "reject: tensor.negative"},
      {"tensor/numel_overflow.pt", "reject: tensor.numel"},
      {"tensor/numel_more_than_record.pt", "reject: tensor.storage_size"},
      {"tensor/rank_mismatch.pt", "reject: tensor.rank"},
      {"tensor/record_missing.pt", "reject: tensor.record_missing"},
      {"tensor/key_abs.pt", "reject: tensor.storage_key"},
      {"tensor/alias_two_dtypes.pt", "reject: tensor.storage_conflict"},
      {"tensor/pid_short.pt", "reject: tensor.storage"},
      {"tensor/v3_bytes_odd.pt", "reject: tensor.storage_size"},
      {"tensor/byteorder_middle.pt", "reject: tensor.byteorder"},
      {"zip/local_name_differs.pt", "reject: zip.local"},
      {"zip/local_method_differs.pt", "reject: zip.local"},
      {"zip/overlap_same.pt", "reject: zip.overlap"},
      {"zip/deflated_pickle.pt", "reject: zip.compressed"},
      {"zip/encrypted_flag.pt", "reject: zip.flags"},
      {"zip/dup_name_evil_last.pt", "reject: zip.duplicate"},
      {"zip/name_dotdot.pt", "reject: zip.name"},
      {"zip/no_pickle.pt", "reject: zip.no_pickle"},
      {"zip/trailing_junk.pt", "reject: zip.end"},
      {"zip/prefix_junk.pt", "reject: "},
      {"zip/multi_disk.pt", "reject: zip.disks"},
      {"zip/torchscript.pt", "inspect-only: torch.torchscript"},
      {"legacy/magic.pt", "reject: legacy.magic"},
      {"legacy/size_field_huge.pt", "reject: legacy.count"},
      {"legacy/key_missing.pt", "reject: legacy.keys"},
      {"legacy/view_oob.pt", "reject: tensor.out_of_bounds"},
      {"legacy/trunc_blob.pt", "reject: legacy.truncated"},
      {"legacy/evil_sysinfo.pt", "inspect-only: pickle.dangerous"},
      {"legacy/tar_format.pt", "reject: torch.tar"},
  };
  for (const auto& [key, reason] : reasons) {
    const auto& file = key;
    CAPTURE(file);
    Catalog catalog;
    const std::string got = verdict(data("hostile/" + file), catalog);
    CAPTURE(got);
    CHECK(got.starts_with(reason));
  }
}

TEST_CASE("hostile torch files: messages name the place") {
  const auto line = [](const std::string& file) -> std::string {
    try {
      torch::TorchFile::open(InputFile::open(data("hostile/" + file)));
    } catch (const Error& e) {
      return e.line().substr(e.line().rfind('/', e.line().find(".pt")) + 1);
    }
    return "no error";
  };
  CHECK(line("pickle/underflow_tuple3.pt")
            .starts_with("underflow_tuple3.pt!archive/data.pkl: TUPLE3 at byte "));
  CHECK(line("tensor/oob_by_one.pt") ==
        "oob_by_one.pt!archive/data.pkl::w: a tensor [2, 3] reaches element 7 of storage 0, which has 6");
  const auto file = torch::TorchFile::open(InputFile::open(data("hostile/pickle/reduce_os_system.pt")));
  REQUIRE(file->refusal());
  CHECK(file->refusal()->message().starts_with("call of "));
}
