#include "lib/formats/megatron/write/target_mesh.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::megatron {

namespace {

constexpr int64_t kMostRanks = 1 << 20;
constexpr std::array<std::string_view, 6> kAxes = {"tp", "pp", "vp", "ep", "etp", "dp"};

[[noreturn]] void refuse(std::string text) { throw trouble("usage.layout", std::move(text)); }

int64_t product(int64_t a, int64_t b) {
  const auto n = checked_mul(a, b);
  if (!n || *n > kMostRanks) refuse(cat("--layout: expected at most ", kMostRanks, " ranks"));
  return *n;
}

// Ranks of one stage without further replicas: as many as both kinds of parameters divide.
int64_t smallest_stage(const TargetMesh& m) {
  const int64_t experts = product(m.etp, m.ep);
  return product(m.tp / std::gcd(m.tp, experts), experts);
}

// Ranks count tp fastest, then (cp and) dp, then pp; for experts etp, ep, then their replicas: Megatron's
// default order "tp-cp-ep-dp-pp".
void add_files(TargetMesh& m) {
  std::map<std::pair<int64_t, int64_t>, int64_t> etp_of;  // tp, ep
  std::vector<RankFile> stage;
  for (int64_t r = 0; r < smallest_stage(m); ++r) {
    RankFile file{r % m.tp, 0, r / m.etp % m.ep, r % m.etp, r / m.tp == 0, r / (m.etp * m.ep) == 0, r / m.tp};
    const auto [at, is_new] = etp_of.try_emplace({file.tp, file.ep}, file.etp);
    if (is_new) stage.push_back(file);
    if (at->second != file.etp)
      refuse(cat("--layout etp: expected parts of experts that the ranks of tp=", m.tp, ", ep=", m.ep,
                 " tell apart, as the names of Megatron's files say no more, found ", m.etp));
  }
  for (int64_t p = 0; p < m.pp; ++p) {
    for (RankFile file : stage) {
      file.pp = p;
      m.files.push_back(file);
    }
  }
}

}  // namespace

std::string TargetMesh::folder_of(const RankFile& file) const {
  std::string out = cat("mp_rank_", zero_padded(file.tp, 2));
  if (pp > 1) out += cat("_", zero_padded(file.pp, 3));
  if (ep > 1) out += cat("_", zero_padded(file.ep, 3));
  return out;
}

TargetMesh target_mesh(const Catalog& source, const AskedSizes& asked) {
  for (const auto& [axis, size] : asked) {
    if (std::ranges::find(kAxes, axis) == kAxes.end())
      refuse(cat("--layout ", escape(axis, 40), ": a Megatron checkpoint has tp, pp, vp, ep, etp and dp"));
    if (size < 1 || size > kMostRanks)
      refuse(cat("--layout ", axis, ": expected 1 to ", kMostRanks, " ranks, found ", size));
  }
  const auto size = [&](std::string_view axis, int64_t otherwise) {
    const auto found = asked.find(axis);
    return found == asked.end() ? std::max<int64_t>(1, otherwise) : found->second;
  };
  TargetMesh m;
  m.tp = size("tp", source.mesh.tp);
  m.pp = size("pp", source.mesh.pp);
  m.vp = size("vp", m.pp == 1 ? 1 : source.mesh.vp);
  m.ep = size("ep", source.mesh.ep);
  m.etp = size("etp", source.mesh.etp == source.mesh.tp ? m.tp : source.mesh.etp);
  if (m.vp > 1 && m.pp == 1)
    refuse(cat("--layout vp: expected 1, as virtual stages take several stages, found ", m.vp));
  const auto cp = source.arguments.find("context_parallel_size");
  if (cp != source.arguments.end() && cp->second >= 1 && cp->second <= kMostRanks) m.cp = cp->second;
  const int64_t stage = product(smallest_stage(m), m.cp), smallest = stage / m.tp / m.cp;
  const auto world = source.arguments.find("world_size");
  const int64_t ranks_of_stage = product(m.tp, m.cp);
  m.dp = smallest;
  if (world != source.arguments.end() && world->second > 0 && world->second % product(stage, m.pp) == 0)
    m.dp = world->second / (m.pp * ranks_of_stage);
  m.dp = size("dp", m.dp);
  if (m.dp % smallest != 0)
    refuse(cat("--layout dp: expected a multiple of ", smallest, ", so that etp × ep divides tp × dp, found ",
               m.dp));
  product(product(m.pp, m.vp), product(ranks_of_stage, m.dp));
  add_files(m);
  return m;
}

std::vector<Coordinate> ranks(const Catalog& source, const AskedSizes& asked) {
  const TargetMesh mesh = target_mesh(source, asked);
  std::vector<Coordinate> out;
  for (const RankFile& f : mesh.files)
    for (int64_t v = 0; v < mesh.vp; ++v)
      out.push_back({{"tp", f.tp}, {"pp", f.pp}, {"vp", v}, {"ep", f.ep}, {"etp", f.etp}});
  return out;
}

}  // namespace uckpt::megatron
