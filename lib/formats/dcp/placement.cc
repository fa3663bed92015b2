#include "lib/formats/dcp/placement.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/tensor/grid.h"

namespace uckpt::dcp {

namespace {

std::string list_of(const std::vector<int64_t>& numbers, std::string_view between = ", ") {
  std::string out;
  for (size_t i = 0; i < numbers.size(); ++i) out += cat(i > 0 ? between : "", numbers[i]);
  return out;
}

std::optional<Grid> grid(const StoredTensor& tensor) {
  return grid_of(tensor.shape, tensor.chunks.size(), [&](size_t chunk, size_t d) {
    return Interval{tensor.chunks.boxes().offset(chunk, d), tensor.chunks.boxes().extent(chunk, d)};
  });
}

std::string tensors_text(size_t count) { return cat(count, count == 1 ? " tensor" : " tensors"); }

}  // namespace

int64_t writer_of(std::string_view name) {
  name.remove_prefix(name.rfind('/') == std::string_view::npos ? 0 : name.rfind('/') + 1);
  int64_t rank = -1;
  if (!name.starts_with("__") || name.size() > 40) return -1;
  const auto [end, error] = std::from_chars(name.data() + 2, name.data() + name.size(), rank);
  return error == std::errc() && end != name.data() + name.size() && *end == '_' ? rank : -1;
}

std::string layout_text(const StoredTensor& tensor) {
  if (tensor.chunks.size() < 2) return "whole";
  constexpr size_t kShown = 4;
  const std::optional<Grid> parts_of = grid(tensor);
  if (!parts_of) return cat(tensor.chunks.size(), " chunks");
  const std::vector<size_t> dims = cut_dims(*parts_of);
  std::string names, counts;
  bool even = true;
  for (const size_t d : dims) {
    names += cat(names.empty() ? "" : ", ", d);
    counts += cat(counts.empty() ? "" : " x ", (*parts_of)[d].size());
    even &= is_even((*parts_of)[d]);
  }
  std::string out = cat(dims.size() > 1 ? "dims " : "dim ", names, " in ", counts);
  const std::vector<int64_t>& parts = (*parts_of)[dims.front()];
  if (!even && dims.size() == 1 && parts.size() <= kShown)
    out += cat(": ", list_of(parts));
  else if (!even)
    out += ", uneven";
  if (tensor.empty_chunks > 0) out += cat(", ", tensor.empty_chunks, " empty");
  return out;
}

std::vector<std::pair<std::string, std::string>> placement_facts(const Stored& stored) {
  std::vector<std::pair<std::string, std::string>> out;
  std::map<std::string, std::pair<size_t, size_t>> cuts;  // "dim 0 in 4" -> tensors, of them uneven
  size_t whole = 0, chunks = 0, other = 0;
  std::vector<std::optional<Grid>> grids;
  for (const StoredTensor& t : stored.tensors) {
    chunks += t.chunks.size();
    const auto& parts_of = grids.emplace_back(grid(t));
    if (t.chunks.size() < 2) {
      ++whole;
      continue;
    }
    if (!parts_of) {
      ++other;
      continue;
    }
    const std::string text = layout_text(t);
    const bool uneven = std::ranges::any_of(*parts_of, [](const auto& parts) { return !is_even(parts); });
    auto& [count, of_them] = cuts[text.substr(0, text.find_first_of(":,", text.find(" in ")))];
    ++count;
    of_them += uneven;
  }
  std::vector<std::pair<std::string, std::pair<size_t, size_t>>> order(cuts.begin(), cuts.end());
  std::ranges::stable_sort(order,
                           [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
  std::string placement;
  constexpr size_t kShown = 4;
  for (size_t i = 0; i < std::min(order.size(), kShown); ++i) {
    const auto& [text, count] = order[i];
    placement += cat(placement.empty() ? "" : "; ", tensors_text(count.first), ": ", text,
                     count.second > 0 ? cat(" (", count.second, " unevenly)") : std::string());
  }
  if (order.size() > kShown) placement += cat("; ", order.size() - kShown, " other ways");
  if (other > 0) placement += cat(placement.empty() ? "" : "; ", tensors_text(other), ": no grid");
  if (whole > 0) placement += cat(placement.empty() ? "" : "; ", tensors_text(whole), ": whole");
  if (!placement.empty()) out.emplace_back("placement", placement);
  std::set<int64_t> writers;
  for (const std::string& file : stored.files) writers.insert(writer_of(file));
  writers.erase(-1);
  const auto wrote = static_cast<int64_t>(writers.size());
  const std::vector<int64_t> mesh = guess_mesh(grids);
  if (!mesh.empty()) {
    std::string guess = mesh.size() == 2 ? cat(mesh[0], " x ", mesh[1], ": tensors are cut along two dims")
                                         : cat(mesh[0], " ranks hold different parts");
    if (mesh.size() == 1 && wrote > mesh[0] && wrote % mesh[0] == 0)
      guess += cat(", each part ", wrote / mesh[0], " times, as ", wrote, " ranks wrote");
    out.emplace_back("mesh guessed", std::move(guess));
  }
  out.emplace_back("chunks", cat(chunks, ", in ", stored.files.size(),
                                 stored.files.size() == 1 ? " data file" : " data files",
                                 wrote > 0 ? cat(" of ", wrote, wrote == 1 ? " rank" : " ranks") : ""));
  return out;
}

}  // namespace uckpt::dcp
