// Random models from one random layout to another and from there to whole tensors: what each rank gets, and
// what comes out in the end, is what references say that handle elements one by one.
#include <doctest/doctest.h>

#include <random>

#include "lib/base/text.h"
#include "tests/unit/convert/two_hops_testing.h"

namespace uckpt::testing {
namespace {

using layout::testing::Array;
using layout::testing::NoImports;

struct Model {
  std::vector<std::string> names;
  std::vector<Array> wholes;
};

class Hops {
 public:
  explicit Hops(uint32_t seed) : random_(seed) {}
  int64_t pick(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random_); }

  // Whatever the language can say: its sizes make the model's.
  RandomLayout rich(uint32_t seed, size_t tensors) {
    RandomLayout out = empty();
    Sampler sampler(seed, out.mesh);
    for (size_t i = 0; i < tensors; ++i) {
      const bool rows_cut = pick(0, 1) == 1;
      const std::vector<std::string> none, both = {"tp", "dp"};
      out.tensors.push_back(
          {cat("w", i), sampler.dim(2, rows_cut ? both : none), sampler.dim(1, rows_cut ? none : both)});
    }
    finish(out, sampler);
    return out;
  }

  // For the same sizes: dims as one axis or two blocks, cut into even, ceil-sized, given or padded shares.
  RandomLayout plain(const Model& model) {
    RandomLayout out = empty();
    Sampler sampler(0, out.mesh);
    for (size_t i = 0; i < model.names.size(); ++i) {
      const bool rows_cut = pick(0, 1) == 1;
      out.tensors.push_back({model.names[i], dim(out.mesh, model.wholes[i].shape[0], rows_cut),
                             dim(out.mesh, model.wholes[i].shape[1], !rows_cut)});
    }
    finish(out, sampler);
    return out;
  }

  static Held whole(const std::vector<Sampler::Node>& dim) {
    return Sampler::held(dim, {{"tp", 0}, {"dp", 0}}, {{"tp", 1}, {"dp", 1}});
  }

 private:
  RandomLayout empty() {
    RandomLayout out;
    out.mesh = {{"tp", pick(1, 4)}, {"dp", pick(1, 3)}};
    out.zero_ranks = pick(1, 4);
    out.by_parameter = pick(0, 1) == 1;
    return out;
  }

  static void finish(RandomLayout& out, Sampler& sampler) {
    std::string rules;
    for (const RuledTensor& t : out.tensors)
      rules += cat("  \"", t.name, "\" [", sampler.text(t.rows), ", ", sampler.text(t.columns), "]\n");
    out.text = cat("ucl 1\nwhere ", sampler.where(), "\nlayout l over tp, dp {\n", rules, "}\n");
  }

  Sampler::Node axis(const Coordinate& mesh, int64_t size, const std::vector<std::string>& cuts) {
    Sampler::Node n;
    n.size = size;
    n.name = cat("y", next_++);
    n.cuts = cuts;
    if (pick(0, 3) == 0) n.pad = pick(1, 5);
    if (cuts.size() != 1) return n;
    const int64_t ranks = mesh.at(cuts.front()), length = n.pad ? round_up(size, n.pad) : size;
    if (length % ranks == 0 && pick(0, 1)) {
      n.how = "[even]";
    } else if (pick(0, 1)) {
      n.how = "[";
      for (int64_t r = 0, left = length; r < ranks; ++r) {
        n.widths.push_back(r + 1 == ranks ? left : pick(0, left));
        left -= n.widths.back();
        n.how += cat(r ? "," : "", n.widths.back());
      }
      n.how += "]";
    }
    return n;
  }

  std::vector<Sampler::Node> dim(const Coordinate& mesh, int64_t size, bool is_cut) {
    static const std::vector<std::vector<std::string>> kCuts = {{"tp"}, {"dp"}, {"tp", "dp"}, {"dp", "tp"}};
    const auto cuts = [&] { return is_cut ? kCuts[static_cast<size_t>(pick(0, 3))] : kCuts[0]; };
    const std::vector<std::string> none;
    if (size < 2 || pick(0, 2) > 0) return {axis(mesh, size, is_cut ? cuts() : none)};
    const int64_t first = pick(1, size - 1);
    Sampler::Node blocks;
    blocks.kind = Sampler::Node::kConcat;
    for (const int64_t part : {first, size - first})
      blocks.blocks.push_back({axis(mesh, part, is_cut && pick(0, 1) ? cuts() : none)});
    return {blocks};
  }

  std::mt19937 random_;
  int next_ = 0;
};

Model model_of(const RandomLayout& layout, Hops& random) {
  Model model;
  for (const RuledTensor& t : layout.tensors) {
    model.names.push_back(t.name);
    Array a{{Hops::whole(t.rows).whole, Hops::whole(t.columns).whole}, {}};
    for (int64_t i = 0; i < numel_of(a.shape); ++i)
      a.values.push_back(static_cast<float>(random.pick(1, 1 << 24)));
    model.wholes.push_back(std::move(a));
  }
  return model;
}

// What a rank's file has of a tensor, by the reference.
Array held(const RuledTensor& t, const Array& whole, const Coordinate& at, const Coordinate& mesh) {
  const Held rows = Sampler::held(t.rows, at, mesh), columns = Sampler::held(t.columns, at, mesh);
  Array out{{static_cast<int64_t>(rows.elements.size()), static_cast<int64_t>(columns.elements.size())}, {}};
  for (const int64_t r : rows.elements)
    for (const int64_t c : columns.elements)
      out.values.push_back(r < 0 || c < 0 ? 0 : whole.values[static_cast<size_t>(r * columns.whole + c)]);
  return out;
}

ByteSpan bytes_of_array(const Array& a) {
  return {reinterpret_cast<const uint8_t*>(a.values.data()), a.values.size() * 4};
}

// The checkpoint as the layout's ranks have it, each fragment in a file of its own.
Catalog fragments(const Model& model, const RandomLayout& layout) {
  Catalog c;
  c.path = "first";
  for (const Coordinate& at : layout::grid_of(layout.mesh)) {
    RankSet& set = c.ranks.emplace_back(RankSet{at, {}});
    for (size_t i = 0; i < model.names.size(); ++i) {
      const Array part = held(layout.tensors[i], model.wholes[i], at, layout.mesh);
      if (part.values.empty()) continue;
      const ByteSpan bytes = bytes_of_array(part);
      const auto numel = static_cast<int64_t>(part.values.size());
      const FileId file =
          c.add_file(std::make_shared<MemorySource>(model.names[i], Bytes(bytes.begin(), bytes.end())));
      const uint32_t mark = c.piece_mark();
      c.add_flat(file, kNoRecord, 0, numel, 0, numel);
      Tensor t{};
      t.name = model.names[i], t.state = state::kMaster, t.dtype = DType::kF32, t.shape = part.shape;
      t.pieces = c.pieces_since(mark);
      set.tensors.push_back(std::move(t));
    }
  }
  return c;
}

ucl::Spec spec_of(const RandomLayout& layout) {
  NoImports none;
  ucl::Diagnostics diagnostics;
  ucl::Spec spec = ucl::read_spec(ucl::Source("spec.ucl", layout.text), none, diagnostics);
  ucl::check(spec, diagnostics);
  REQUIRE(diagnostics.text() == "");
  return spec;
}

// Joins the fragments; every tensor is the model's, by the naive reference.
void join(Catalog& catalog, const RandomLayout& layout, const Model& model) {
  const ucl::Spec spec = spec_of(layout);
  ucl::Diagnostics diagnostics;
  layout::assemble(catalog, spec, spec.layout("l"), {{}, {}, layout.mesh}, diagnostics);
  REQUIRE(diagnostics.text() == "");
  REQUIRE(catalog.tensors.size() == model.names.size());
  for (const Tensor& t : catalog.tensors) {
    const auto i = static_cast<size_t>(std::ranges::find(model.names, t.name) - model.names.begin());
    REQUIRE(i < model.names.size());
    REQUIRE(t.shape == model.wholes[i].shape);
    CHECK(std::ranges::equal(test::naive_assemble(catalog, t), bytes_of_array(model.wholes[i])));
  }
}

// The files of the next layout, and the fragments that a reader finds in them: each rank's is the
// reference's.
Catalog hop(const Catalog& catalog, const RandomLayout& to, const Model& model, int threads) {
  const ucl::Spec spec = spec_of(to);
  ucl::Diagnostics diagnostics;
  std::vector<uint32_t> all;
  for (uint32_t i = 0; i < catalog.tensors.size(); ++i) all.push_back(i);
  const std::vector<Coordinate> ranks = layout::grid_of(to.mesh);
  const layout::Distributed made =
      layout::distribute(catalog, all, spec, spec.layout("l"), {{}, {}, to.mesh}, ranks, diagnostics);
  REQUIRE(diagnostics.text() == "");
  Written written = Cutter(made.shards, to).run();
  const std::vector<Bytes> files = carry_out(catalog, written.layout, threads);
  Catalog next;
  next.path = "second";
  for (size_t f = 0; f < files.size(); ++f)
    next.add_file(std::make_shared<MemorySource>(written.layout.files[f].name, files[f]));
  for (size_t r = 0; r < made.shards.ranks.size(); ++r) {
    const RankShards& rank = made.shards.ranks[r];
    RankSet& set = next.ranks.emplace_back(RankSet{rank.at, {}});
    for (size_t s = 0; s < rank.shards.size(); ++s) {
      const Shard& shard = rank.shards[s];
      Tensor t{};
      t.name = shard.name, t.state = state::kMaster, t.dtype = DType::kF32, t.shape = shard.shape;
      const uint32_t mark = next.piece_mark();
      for (const Range& range : written.ranges[r][s])
        next.add_flat(range.file, kNoRecord, range.offset, numel_of(t.shape), range.first, range.count);
      t.pieces = next.pieces_since(mark);
      const auto i = static_cast<size_t>(std::ranges::find(model.names, t.name) - model.names.begin());
      const Array expected = held(to.tensors[i], model.wholes[i], rank.at, to.mesh);
      CHECK(t.shape == expected.shape);
      CHECK(std::ranges::equal(test::naive_assemble(next, t), bytes_of_array(expected)));
      set.tensors.push_back(std::move(t));
    }
  }
  return next;
}

// All tensors whole, one after another in one file.
void check_whole(const Catalog& catalog, const Model& model, int threads) {
  TargetLayout layout;
  layout.files.push_back({"", 0, {}, {}});
  for (uint32_t i = 0; i < catalog.tensors.size(); ++i) {
    const uint32_t shard = layout.add_whole_shard(catalog, i);
    layout.holes.push_back({shard, 0, layout.files[0].size, 0, layout.shards[shard].numel, DType::kF32});
    layout.files[0].size += layout.holes.back().bytes();
  }
  const std::vector<Bytes> files = carry_out(catalog, layout, threads);
  for (const Hole& hole : layout.holes) {
    const std::string& name = layout.tensor_of(catalog, hole).name;
    const auto i = static_cast<size_t>(std::ranges::find(model.names, name) - model.names.begin());
    const ByteSpan found(files[0].data() + hole.offset, static_cast<size_t>(hole.bytes()));
    CHECK(std::ranges::equal(found, bytes_of_array(model.wholes[i])));
  }
}

TEST_CASE("two hops over random layouts give back every tensor") {
  int tried = 0, cut = 0, refused = 0;
  for (uint32_t seed = 0; seed < 1800; ++seed) {
    Hops random(seed);
    RandomLayout from = random.rich(seed, static_cast<size_t>(random.pick(1, 3)));
    const Model model = model_of(from, random);
    size_t elements = 0;
    for (const Array& a : model.wholes) elements += a.values.size();
    if (elements > 300) continue;
    RandomLayout to = random.plain(model);
    if (random.pick(0, 1)) std::swap(from, to);
    CAPTURE(seed);
    CAPTURE(from.text);
    CAPTURE(to.text);
    const int threads = seed % 8 == 0 ? 2 : 1;
    ++tried;
    try {
      Catalog first = fragments(model, from);
      join(first, from, model);
      Catalog second = hop(first, to, model, threads);
      join(second, to, model);
      check_whole(second, model, threads);
    } catch (const Error& e) {  // some blocks of a sum have factors that do not nest: refused, never wrong
      CAPTURE(e.line());
      REQUIRE(e.message().find("factorings that do not nest") != std::string::npos);
      ++refused;
      continue;
    }
    cut += to.mesh.at("tp") * to.mesh.at("dp") * to.zero_ranks > 1;
  }
  CHECK(tried > 900);
  CHECK(cut > 800);
  CHECK(refused < tried / 10);
}

}  // namespace
}  // namespace uckpt::testing
