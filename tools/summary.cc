#include "tools/summary.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/io/input.h"

namespace uckpt::cli {
namespace {

void add_once(std::vector<std::string>& list, std::string_view item) {
  if (std::ranges::find(list, item) == list.end()) list.emplace_back(item);
}

void count(StateCount& into, const Tensor& t) {
  ++into.tensors;
  add_once(into.dtypes, name_of(t.dtype));
  if (t.alias) return;
  into.parameters = capped_add(into.parameters, numel_of(t.shape));
  into.bytes = capped_add(into.bytes, bytes_of(t));
}

}  // namespace

int state_rank(std::string_view name) {
  static constexpr std::array<std::string_view, 3> kFirst = {"fp32", "exp_avg", "exp_avg_sq"};
  static constexpr std::array<std::string_view, 4> kLast = {"step", "param", "buffer", "other"};
  if (const auto at = std::ranges::find(kFirst, name); at != kFirst.end())
    return static_cast<int>(at - kFirst.begin());
  if (const auto at = std::ranges::find(kLast, name); at != kLast.end())
    return static_cast<int>(10 + (at - kLast.begin()));
  return 5;  // other states of an optimizer
}

std::vector<std::string> refusal_lines(std::span<const Tensor* const> tensors) {
  constexpr size_t kShown = 3;
  std::vector<std::string> reasons;
  std::map<std::string, std::vector<std::string>> named;
  for (const Tensor* t : tensors) {
    if (t->refusal.empty()) continue;
    add_once(reasons, t->refusal);
    named[t->refusal].push_back(t->path());
  }
  std::vector<std::string> lines;
  for (const std::string& reason : reasons) {
    std::vector<std::string>& names = named[reason];
    const size_t more = names.size() > kShown ? names.size() - kShown : 0;
    names.resize(names.size() - more);
    lines.push_back(cat(joined(names), more > 0 ? cat(" and ", more, " more") : std::string(), ": ", reason));
  }
  return lines;
}

Summary summarise(const Catalog& catalog) {
  Summary s;
  std::map<std::string, size_t> index;
  std::map<uint32_t, std::vector<std::string>> tied;
  for (uint32_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& t = catalog.tensors[i];
    const auto [at, fresh] = index.emplace(t.state, s.states.size());
    if (fresh) s.states.emplace_back().state = t.state;
    count(s.states[at->second], t);
    count(s.total, t);
    if (!t.alias && (t.state == state::kMaster || t.state == state::kParam)) {
      s.model_parameters = capped_add(s.model_parameters, numel_of(t.shape));
    }
    for (const Copy& c : t.copies) {
      if (c.is_module) add_once(s.module_dtypes, name_of(c.dtype));
    }
    if (t.alias) tied[*t.alias].push_back(t.path());
    if (!t.refusal.empty()) s.refused.push_back(i);
  }
  std::ranges::stable_sort(s.states, {}, [](const StateCount& c) { return state_rank(c.state); });
  for (auto& [root, names] : tied) {
    names.insert(names.begin(), catalog.tensors[root].path());
    s.tied.push_back(std::move(names));
  }
  std::vector<const Tensor*> refused;
  for (uint32_t i : s.refused) refused.push_back(&catalog.tensors[i]);
  s.refusals = refusal_lines(refused);
  for (const auto& file : catalog.files) s.file_bytes += file->size();
  return s;
}

int64_t capped_add(int64_t a, int64_t b) {
  return checked_add(a, b).value_or(std::numeric_limits<int64_t>::max());
}

int64_t capped_mul(int64_t a, int64_t b) {
  return checked_mul(a, b).value_or(std::numeric_limits<int64_t>::max());
}

std::string joined(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += cat(out.empty() ? "" : ", ", item);
  return out;
}

std::string size_text(int64_t bytes) { return human_bytes(static_cast<uint64_t>(bytes)); }

std::string counted(int64_t n, std::string_view noun) {
  return cat(human_count(static_cast<uint64_t>(n)), " ", noun, n == 1 ? "" : "s");
}

}  // namespace uckpt::cli
