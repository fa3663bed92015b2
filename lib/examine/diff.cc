#include "lib/examine/diff.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/examine/match.h"
#include "lib/examine/value_text.h"
#include "lib/kernels/numbers.h"

namespace uckpt {

namespace {

constexpr plan::PlanOptions kOnlyTensors{.check_crc = false, .compare_copies = false};

// The first's rules are for the second too, if that has fragments to join: one whole file has none.
RuleOptions rules_for_second(const std::string& path, const OpenOptions& open, const DiffOptions& options) {
  if (options.second_rules) return *options.second_rules;
  const RuleOptions& first = options.read.rules;
  RuleOptions rules;
  if (first.spec.empty() && first.naming.empty() && first.set.empty()) return rules;
  const Catalog catalog = open_catalog(path, open);
  if (catalog.ranks.empty() && catalog.spec_folder.empty()) return rules;
  rules = first;
  rules.as.clear();
  return rules;
}

Catalog open_second(const std::string& path, const DiffOptions& options) {
  OpenOptions open = options.read.open;
  open.from = options.second_from;
  Catalog catalog = open_whole(path, open, rules_for_second(path, open, options), false);
  if (catalog.refusal) throw *catalog.refusal;
  return catalog;
}

Shape index_of(int64_t flat, const Tensor& t) {
  if (!kernels::has_numbers(t.dtype)) return {flat};
  Shape out(t.shape.size());
  for (size_t d = out.size(); d-- > 0; flat /= t.shape[d]) out[d] = flat % t.shape[d];
  return out;
}

class Differ {
 public:
  Differ(const std::string& first, const std::string& second, DiffOptions& options, Progress& progress,
         const StopFlag& stop)
      : options_(options),
        progress_(progress),
        stop_(stop),
        first_(open_to_read(first, options.read)),
        second_(open_second(second, options)),
        buffers_(options.read.buffers(std::array{&first_.catalog, &second_})) {}

  DiffReport run() {
    report_.exact = !options_.tolerance;
    report_.tensors = static_cast<int64_t>(first_.tensors.size());
    for (const Catalog* catalog : {&first_.catalog, &second_})
      for (const std::string& w : catalog->warnings)
        report_.warnings.push_back(cat(escape(catalog->path), ": ", w));
    match();
    compare();
    judge();
    return std::move(report_);
  }

 private:
  // Tensors that both have stored, each pair once: further names of theirs share what is found.
  struct StoredPair {
    uint32_t first, second;  // of the catalogs; then of those read
    kernels::ValueDifferences found;
  };
  struct NamedPair {
    uint32_t first, second;  // of the catalogs
    size_t stored;
  };

  // All of the first take part, chosen or not: what has a partner is not extra.
  void match() {
    std::vector<uint32_t> mine, theirs;
    std::vector<std::string> my_paths, their_paths;
    for (uint32_t i = 0; i < first_.catalog.tensors.size(); ++i) {
      const Tensor& t = first_.catalog.tensors[i];
      if (t.state == state::kObjects) continue;
      mine.push_back(i);
      my_paths.push_back(cat(t.state, "/", options_.map(t.name)));
    }
    options_.map.check_used();
    for (uint32_t i = 0; i < second_.tensors.size(); ++i) {
      if (second_.tensors[i].state == state::kObjects) continue;
      theirs.push_back(i);
      their_paths.push_back(second_.tensors[i].path());
    }
    check_distinct(my_paths, first_.catalog, !options_.map.empty());
    check_distinct(their_paths, second_, false);
    const PathMatches matches = match_paths(my_paths, their_paths);

    std::map<uint32_t, std::optional<uint32_t>> partner;  // of the first's, in the catalogs
    for (size_t i = 0; i < mine.size(); ++i)
      partner[mine[i]] =
          matches.second[i] ? std::optional<uint32_t>(theirs[*matches.second[i]]) : std::nullopt;
    for (const uint32_t t : first_.tensors) add_pair(t, partner.at(t));
    for (const uint32_t e : matches.extra)
      if (is_asked_for(second_.tensors[theirs[e]]))
        report_.extra.push_back(lone(second_, second_.tensors[theirs[e]], false));
  }

  static void check_distinct(const std::vector<std::string>& paths, const Catalog& catalog, bool mapped) {
    std::unordered_set<std::string_view> seen;
    for (const std::string& path : paths) {
      if (seen.insert(path).second) continue;
      throw(mapped ? trouble("usage.map", "--map gives two tensors this name")
                   : refused("name.twice", "two tensors have this name"))
          .in_file(catalog.path)
          .in_tensor(path);
    }
  }

  // Would it have been chosen in the first? A weight there may count as another kind of weight here.
  bool is_asked_for(const Tensor& t) const {
    const Selection& selection = options_.read.selection;
    return is_weight(t.state) ? takes_any_weight(selection, t.name) : selection.takes(t);
  }

  static TensorPair pair_of(const Tensor* first, const Tensor* second) {
    TensorPair out;
    if (first != nullptr) out.path = first->path(), out.dtype = first->dtype, out.shape = first->shape;
    if (second != nullptr)
      out.second_path = second->path(), out.second_dtype = second->dtype, out.second_shape = second->shape;
    return out;
  }

  static TensorPair lone(const Catalog& catalog, const Tensor& t, bool is_first) {
    TensorPair out = is_first ? pair_of(&t, nullptr) : pair_of(nullptr, &t);
    if (t.alias) out.tied_to = catalog.tensors[*t.alias].path();
    return out;
  }

  void add_pair(uint32_t first, std::optional<uint32_t> second) {
    const Tensor& a = first_.catalog.tensors[first];
    if (!second) return report_.missing.push_back(lone(first_.catalog, a, true));
    const Tensor& b = second_.tensors[*second];
    if (a.shape != b.shape) return report_.shapes.push_back(pair_of(&a, &b));
    const bool one_type = a.dtype == b.dtype;
    if (!one_type && !(options_.ignore_dtype && kernels::values_comparable(a.dtype, b.dtype)))
      return report_.dtypes.push_back(pair_of(&a, &b));
    const uint32_t a_stored = a.alias.value_or(first), b_stored = b.alias.value_or(*second);
    if (const std::string& why = second_.tensors[b_stored].refusal; !why.empty())
      throw refused("tensor.refused", why)
          .in_file(second_.path)
          .in_tensor(b.path())
          .hint("--drop leaves it out");
    const auto [at, is_new] = stored_at_.try_emplace({a_stored, b_stored}, stored_.size());
    if (is_new) stored_.push_back({a_stored, b_stored, {}});
    named_.push_back({first, *second, at->second});
  }

  // Each tensor of the first is read once, range by range, and the same ranges of its partners.
  void compare() {
    std::vector<uint32_t> first, second;
    const auto listed = [](std::vector<uint32_t>& list, std::map<uint32_t, uint32_t>& at, uint32_t tensor) {
      const auto [found, is_new] = at.try_emplace(tensor, static_cast<uint32_t>(list.size()));
      if (is_new) list.push_back(tensor);
      return found->second;
    };
    std::map<uint32_t, uint32_t> first_at, second_at;
    for (StoredPair& pair : stored_) {
      pair.first = listed(first, first_at, pair.first);
      pair.second = listed(second, second_at, pair.second);
    }
    partners_.resize(first.size());
    for (size_t p = 0; p < stored_.size(); ++p) partners_[stored_[p].first].push_back(p);
    first_whole_ =
        std::make_unique<exec::WholeTensors>(exec::whole_tensors(first_.catalog, first, kOnlyTensors));
    second_whole_ = std::make_unique<exec::WholeTensors>(exec::whole_tensors(second_, second, kOnlyTensors));
    report_.bytes = first_whole_->plan.bytes_out + second_whole_->plan.bytes_out;

    // Of what a worker may hold (four times its widest range), the first takes one, the second another and
    // its staging. The second's ranges are the first's: where it wants wide ones both are.
    exec::Buffers mine = buffers_, theirs = buffers_;
    theirs.staging_bytes = std::min(theirs.staging_bytes, theirs.strided_bytes);
    mine.task_bytes = std::clamp(exec::widest_range(second_whole_->layout, second_whole_->plan),
                                 mine.task_bytes, mine.strided_bytes);
    const auto make_visitor = [&]() -> exec::ScanVisitor {
      auto reader = std::make_shared<exec::RangeReader>(*second_whole_, theirs);
      auto buffer = std::make_shared<Bytes>();
      return [this, reader, buffer](const exec::ScanRange& range) {
        for (const size_t pair : partners_[range.at]) compare_range(range, pair, *reader, *buffer);
      };
    };
    exec::scan(*first_whole_, mine, {"comparing", false}, make_visitor, progress_, stop_);
  }

  void compare_range(const exec::ScanRange& range, size_t pair, exec::RangeReader& reader, Bytes& buffer) {
    const uint32_t second = stored_[pair].second;
    const DType a_dtype = first_whole_->layout.holes[range.at].dtype,
                b_dtype = second_whole_->layout.holes[second].dtype;
    const int64_t a_item = unit_size(a_dtype), b_item = unit_size(b_dtype);
    const int64_t step = std::max<int64_t>(1, buffers_.strided_bytes / b_item);
    kernels::ValueDifferences found;
    for (int64_t at = 0; at < range.count; at += step) {
      const int64_t count = std::min(step, range.count - at);
      buffer.resize(static_cast<size_t>(count * b_item));
      reader.read(second, range.begin + at, buffer);
      found.add(kernels::compare_values(range.bytes.data() + at * a_item, a_dtype, buffer.data(), b_dtype,
                                        count, options_.tolerance.value_or(kernels::Tolerance{})),
                range.begin + at);
    }
    const std::scoped_lock lock(mutex_);
    stored_[pair].found.add(found, 0);
  }

  void judge() {
    exec::RangeReader first(*first_whole_, buffers_), second(*second_whole_, buffers_);
    for (const NamedPair& named : named_) {
      const StoredPair& stored = stored_[named.stored];
      const Tensor& a = first_.catalog.tensors[named.first];
      ComparedPair pair{
          pair_of(&a, &second_.tensors[named.second]), units_of(a), stored.found, {}, {}, {}, {}};
      ++report_.compared;
      report_.elements += pair.elements;
      const kernels::ValueDifferences& found = stored.found;
      if (found.different == 0 && found.within == 0 && found.bits == 0) {
        ++report_.same;
        continue;
      }
      const auto place = [&](int64_t at) -> std::optional<DiffPlace> {
        if (at < 0) return std::nullopt;
        return DiffPlace{index_of(at, a), text_at(first, *first_whole_, stored.first, at),
                         text_at(second, *second_whole_, stored.second, at)};
      };
      pair.largest = place(found.max_absolute_at);
      pair.largest_relative = place(found.max_relative_at);
      pair.unlike = place(found.first_unlike);
      pair.any = place(found.first);
      auto& list = found.different > 0 ? report_.different
                   : found.within > 0  ? report_.within
                                       : report_.other_bits;
      list.push_back(std::move(pair));
    }
    std::ranges::stable_sort(report_.different, [](const ComparedPair& a, const ComparedPair& b) {
      if ((a.found.unlike > 0) != (b.found.unlike > 0)) return a.found.unlike > 0;
      if (a.found.max_absolute != b.found.max_absolute) return a.found.max_absolute > b.found.max_absolute;
      return a.found.different > b.found.different;
    });
    std::ranges::stable_sort(report_.within, std::greater(),
                             [](const ComparedPair& pair) { return pair.found.max_within; });
  }

  static std::string text_at(exec::RangeReader& reader, const exec::WholeTensors& whole, uint32_t at,
                             int64_t index) {
    const DType dtype = whole.layout.holes[at].dtype;
    Bytes element(static_cast<size_t>(unit_size(dtype)));
    reader.read(at, index, element);
    return value_text(element.data(), dtype);
  }

  DiffOptions& options_;
  Progress& progress_;
  const StopFlag& stop_;
  const Opened first_;
  const Catalog second_;
  const exec::Buffers buffers_;
  std::map<std::pair<uint32_t, uint32_t>, size_t> stored_at_;  // index into `stored_`
  std::vector<StoredPair> stored_;
  std::vector<NamedPair> named_;
  std::vector<std::vector<size_t>> partners_;  // pairs of each tensor of the first that is read
  std::unique_ptr<exec::WholeTensors> first_whole_, second_whole_;
  std::mutex mutex_;
  DiffReport report_;
};

}  // namespace

bool DiffReport::is_same() const {
  return missing.empty() && extra.empty() && shapes.empty() && dtypes.empty() && different.empty() &&
         (!exact || other_bits.empty());
}

DiffReport diff_checkpoints(const std::string& first, const std::string& second, DiffOptions options,
                            Progress& progress, const StopFlag& stop) {
  options.read.open.check_crc = false;  // a damaged file can be compared with a good one
  return Differ(first, second, options, progress, stop).run();
}

}  // namespace uckpt
