#include "lib/examine/verify.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/examine/match.h"
#include "lib/examine/sum.h"

namespace uckpt {

namespace {

// A number of [0, 1) that depends on the name and the seed alone.
double draw(std::string_view name, uint64_t seed) {
  uint64_t h = 0x9e3779b97f4a7c15u ^ seed;
  for (const char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  h = (h ^ (h >> 31)) * 0xbf58476d1ce4e5b9u;
  h ^= h >> 29;
  return static_cast<double>(h >> 11) / 9007199254740992.0;
}

// Tensors by lot until the share of the bytes is reached; at least one.
void take_sample(Opened& opened, double share, uint64_t seed) {
  if (share >= 1 || opened.stored.empty()) return;
  std::vector<std::pair<double, uint32_t>> order;
  double total = 0;
  for (uint32_t s = 0; s < opened.stored.size(); ++s) {
    const Tensor& t = opened.catalog.tensors[opened.stored[s]];
    order.emplace_back(draw(t.path(), seed), s);
    total += static_cast<double>(bytes_of(t));
  }
  std::ranges::sort(order);
  std::vector<bool> taken(opened.stored.size());
  double sum = 0;
  for (const auto& [lot, s] : order) {
    taken[s] = true;
    sum += static_cast<double>(bytes_of(opened.catalog.tensors[opened.stored[s]]));
    if (sum >= share * total) break;
  }
  Opened kept{{}, {}, {}, {}};
  std::vector<uint32_t> new_index(opened.stored.size());
  for (uint32_t s = 0; s < opened.stored.size(); ++s) {
    new_index[s] = static_cast<uint32_t>(kept.stored.size());
    if (taken[s]) kept.stored.push_back(opened.stored[s]);
  }
  for (size_t i = 0; i < opened.tensors.size(); ++i) {
    if (!taken[opened.stored_at[i]]) continue;
    kept.tensors.push_back(opened.tensors[i]);
    kept.stored_at.push_back(new_index[opened.stored_at[i]]);
  }
  opened.tensors = std::move(kept.tensors);
  opened.stored = std::move(kept.stored);
  opened.stored_at = std::move(kept.stored_at);
}

class Verifier {
 public:
  Verifier(Opened& opened, const VerifyOptions& options, Progress& progress, const StopFlag& stop)
      : opened_(opened), options_(options), progress_(progress), stop_(stop) {}

  VerifyReport run() {
    report_.warnings = opened_.catalog.warnings;
    report_.of_tensors = static_cast<int64_t>(opened_.tensors.size());
    open_against();
    take_sample(opened_, options_.sample, options_.seed);
    report_.tensors = static_cast<int64_t>(opened_.tensors.size());
    add_objects();
    // Digests of tensors are judged by what is read of them anyway.
    const exec::WholeTensors whole =
        exec::whole_tensors(opened_.catalog, opened_.stored, {.check_digests = false});
    report_.bytes = whole.plan.bytes_out;
    const exec::Scanned found = exec::scan(whole, buffers_, {"verifying", true}, {}, progress_, stop_);
    report_.checksums = static_cast<int64_t>(whole.plan.checks.size());
    report_.problems = found.damaged;
    judge_copies(whole.plan, found);
    judge_digests(found);
    if (!options_.against.empty()) judge_against(found);
    return std::move(report_);
  }

 private:
  // Objects are bytes like others: their checksums and digests count too.
  void add_objects() {
    if (options_.sample < 1 || !options_.read.selection.takes_all()) return;
    for (uint32_t t = opened_.catalog.add_object_tensors(); t < opened_.catalog.tensors.size(); ++t)
      opened_.stored.push_back(t);
  }

  Error problem(const Tensor& t, std::string code, std::string message) const {
    return refused(std::move(code), std::move(message)).in_file(opened_.catalog.path).in_tensor(t.path());
  }

  void judge_copies(const plan::Plan& plan, const exec::Scanned& found) {
    report_.copies = static_cast<int64_t>(plan.compared.size());
    for (size_t i = 0; i < plan.compared.size(); ++i) {
      const exec::Difference& difference = found.differences[i];
      if (difference.count == 0) continue;
      const Tensor& t = opened_.catalog.tensors[plan.compared[i].tensor];
      const std::string text = cat("its ", t.copies[plan.compared[i].copy].what, " differs from it in ",
                                   human_count(static_cast<uint64_t>(difference.count)),
                                   " elements, first at element ", difference.first);
      if (t.state == state::kBuffer) {  // ranks may drift apart
        report_.warnings.push_back(cat(escape(t.path()), ": ", text));
      } else {
        report_.problems.push_back(problem(t, "copies.differ", text));
      }
    }
  }

  void judge_digests(const exec::Scanned& found) {
    for (size_t s = 0; s < opened_.stored.size(); ++s) {
      const Tensor& t = opened_.catalog.tensors[opened_.stored[s]];
      if (!t.digest) continue;
      ++report_.digests;
      if (*t.digest != found.digests[s])
        report_.problems.push_back(
            problem(t, "digest.differs",
                    cat("expected digest ", crc64_text(*t.digest), ", found ", crc64_text(found.digests[s]),
                        ": its bytes were changed after they were written")));
    }
  }

  void refuse_json() const {
    if (is_answer_in_json(options_.against))
      throw refused("manifest.json", "it is an answer in JSON: expected a manifest or a checkpoint")
          .in_file(options_.against)
          .hint("`uckpt sum -o FILE` without --json makes a manifest");
  }

  // Before anything is read of the checkpoint itself: a mistyped path is told at once.
  void open_against() {
    if (options_.against.empty()) return;
    if (is_manifest(options_.against)) {
      wanted_ = read_manifest(*InputFile::open(options_.against));
      return;
    }
    refuse_json();
    ReadOptions other = options_.read;
    other.open.from.clear();
    other.selection = {};  // its weights may count as others: what is not chosen is left out below
    other_ = open_to_read(options_.against, other);
  }

  void judge_against(const exec::Scanned& found) {
    const bool is_sha256 = !wanted_.empty() && wanted_.front().digest.starts_with("sha256:");
    const DigestKind kind = is_sha256 ? DigestKind::kSha256 : DigestKind::kCrc64;
    if (other_) wanted_ = sum_tensors(*other_, kind, buffers_, progress_, stop_);
    std::vector<TensorSum> have;
    if (kind == DigestKind::kSha256) {
      have = sum_tensors(opened_, kind, buffers_, progress_, stop_);
    } else {
      std::vector<std::string> digests;
      for (const uint64_t digest : found.digests) digests.push_back(crc64_text(digest));
      have = sums_of(opened_, digests);
    }
    compare(wanted_, have);
  }

  void compare(const std::vector<TensorSum>& wanted, const std::vector<TensorSum>& have) {
    std::map<std::string_view, const TensorSum*> missing;
    for (const TensorSum& sum : wanted) missing.emplace(sum.path, &sum);
    for (const TensorSum& sum : have) {
      const auto found = missing.find(sum.path);
      if (found == missing.end()) {
        differs(sum, cat("it is not in ", escape(options_.against)));
        continue;
      }
      const TensorSum& want = *found->second;
      missing.erase(found);
      ++report_.against;
      if (want.dtype != sum.dtype || want.shape != sum.shape) {
        differs(sum, cat("expected ", name_of(want.dtype), " ", shape_text(want.shape), ", found ",
                         name_of(sum.dtype), " ", shape_text(sum.shape)));
      } else if (want.digest != sum.digest) {
        differs(sum, cat("expected ", want.digest, ", found ", sum.digest));
      }
    }
    if (options_.sample < 1) return;
    judge_missing(missing, have);
  }

  void judge_missing(const std::map<std::string_view, const TensorSum*>& missing,
                     const std::vector<TensorSum>& have) {
    if (missing.empty()) return;
    std::unordered_multimap<std::string_view, const TensorSum*> by_digest;
    for (const TensorSum& sum : have) by_digest.emplace(sum.digest, &sum);
    std::unordered_map<std::string_view, const Tensor*> weights;
    for (const Tensor& t : opened_.catalog.tensors)
      if (is_weight(t.state)) weights.emplace(t.name, &t);

    // Some formats have one name for tied tensors. Nothing of them is lost. Of several the first path tells.
    const auto twin_of = [&](const TensorSum& sum) {
      const TensorSum* twin = nullptr;
      const auto [begin, end] = by_digest.equal_range(sum.digest);
      for (auto at = begin; at != end; ++at) {
        const TensorSum& other = *at->second;
        const bool is_same = other.dtype == sum.dtype && other.shape == sum.shape &&
                             split_path(other.path).first == split_path(sum.path).first;
        if (is_same && (twin == nullptr || &other < twin)) twin = &other;
      }
      return twin;
    };
    // Is it among what --select, --drop and --states take? What is there and was not chosen is not missing.
    const auto is_chosen = [&](std::string_view path) {
      const Selection& selection = options_.read.selection;
      const auto [state, name] = split_path(path);
      const auto own = weights.find(name);
      if (state == kAnyWeight)
        return own != weights.end() ? selection.takes(*own->second) : takes_any_weight(selection, name);
      Tensor t{};
      t.state = state;
      t.name = name;
      return selection.takes(t);
    };
    for (const auto& [path, sum] : missing) {
      if (!options_.read.selection.takes_all() && !is_chosen(path)) continue;
      if (const TensorSum* twin = twin_of(*sum)) {
        report_.warnings.push_back(
            cat(escape(path), " is not there; ", escape(twin->path), " has the same bytes"));
      } else {
        differs(*sum, cat("it is missing; ", escape(options_.against), " has it"));
      }
    }
  }

  void differs(const TensorSum& sum, std::string message) {
    report_.problems.push_back(
        refused("verify.differs", std::move(message)).in_file(opened_.catalog.path).in_tensor(sum.path));
  }

  Opened& opened_;
  const VerifyOptions& options_;
  Progress& progress_;
  const StopFlag& stop_;
  const exec::Buffers buffers_ = options_.read.buffers(opened_.catalog);
  std::optional<Opened> other_;  // --against a checkpoint
  std::vector<TensorSum> wanted_;
  VerifyReport report_;
};

}  // namespace

VerifyReport verify_checkpoint(const std::string& path, const VerifyOptions& options, Progress& progress,
                               const StopFlag& stop) {
  Opened opened = open_to_read(path, options.read);
  return Verifier(opened, options, progress, stop).run();
}

}  // namespace uckpt
