#include "lib/formats/deepspeed/match.h"

#include <algorithm>
#include <map>

namespace uckpt::deepspeed {

namespace {

constexpr size_t kMostStates = 1 << 20;
constexpr size_t kSkipped = ~size_t{0};

// How far every group has come. `ways` counts the paths that lead here, up to 2; with one, `from` retraces
// it.
using Progress = std::vector<uint32_t>;
struct Reached {
  int ways = 0;
  Progress from;
  size_t group = kSkipped;
};
using Layer = std::map<Progress, Reached>;

void reach(Layer& layer, Progress to, const Progress& from, size_t group, int ways) {
  Reached& r = layer[std::move(to)];
  if (r.ways == 0) {
    r.from = from;
    r.group = group;
  }
  r.ways = std::min(2, r.ways + ways);
}

}  // namespace

Match match_in_order(const std::vector<Shape>& shapes,
                     const std::vector<std::vector<std::optional<Shape>>>& groups,
                     std::vector<std::vector<size_t>>& out) {
  Progress full;
  size_t wanted = 0;
  for (const auto& g : groups) {
    full.push_back(static_cast<uint32_t>(g.size()));
    wanted += g.size();
  }
  if (wanted > shapes.size()) return Match::kNone;
  const size_t skips = shapes.size() - wanted;
  std::vector<Layer> layers(1);
  layers[0][Progress(groups.size(), 0)] = {1, {}, kSkipped};
  size_t states = 1;
  for (size_t k = 0; k < shapes.size(); ++k) {
    Layer next;
    for (const auto& [at, reached] : layers[k]) {
      size_t taken = 0;
      for (const uint32_t n : at) taken += n;
      if (k - taken < skips) reach(next, at, at, kSkipped, reached.ways);
      for (size_t g = 0; g < groups.size(); ++g) {
        if (at[g] == full[g]) continue;
        const auto& shape = groups[g][at[g]];
        if (shape && *shape != shapes[k]) continue;
        Progress to = at;
        ++to[g];
        reach(next, std::move(to), at, g, reached.ways);
      }
    }
    states += next.size();
    if (states > kMostStates) return Match::kSeveral;
    layers.push_back(std::move(next));
  }
  const auto end = layers.back().find(full);
  if (end == layers.back().end()) return Match::kNone;
  if (end->second.ways > 1) return Match::kSeveral;
  out.assign(groups.size(), {});
  for (size_t g = 0; g < groups.size(); ++g) out[g].resize(groups[g].size());
  Progress at = full;
  for (size_t k = shapes.size(); k-- > 0;) {
    const Reached& r = layers[k + 1].at(at);
    if (r.group != kSkipped) out[r.group][at[r.group] - 1] = k;
    at = Progress(r.from);
  }
  return Match::kUnique;
}

}  // namespace uckpt::deepspeed
