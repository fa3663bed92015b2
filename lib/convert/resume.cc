#include "lib/convert/resume.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "lib/base/text.h"
#include "lib/kernels/crc.h"

namespace uckpt {

namespace {

constexpr std::string_view kVersion = "version ", kFlag = "flag ", kInput = "input ", kKept = "kept ",
                           kPlan = "plan ";

// CRC-64 of whatever is fed to it, number by number.
class Fingerprint {
 public:
  template <class... Numbers>
  void add(Numbers... numbers) {
    (add_one(static_cast<uint64_t>(numbers)), ...);
  }
  void add_bytes(ByteSpan bytes) {
    add(bytes.size());
    if (bytes.size() > block_.size() - filled_) flush();
    if (bytes.size() > block_.size()) return feed(bytes);
    std::ranges::copy(bytes, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
    filled_ += bytes.size();
  }
  void add_text(std::string_view text) {
    add_bytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  uint64_t finish() {
    flush();
    return raw_;
  }

 private:
  void add_one(uint64_t number) {
    if (sizeof number > block_.size() - filled_) flush();
    store_le(block_.data() + filled_, number);
    filled_ += sizeof number;
  }
  void flush() {
    feed(ByteSpan(block_).first(filled_));
    filled_ = 0;
  }
  void feed(ByteSpan bytes) { raw_ = kernels::Crc64::shift(raw_, bytes.size()) ^ kernels::crc64_raw(bytes); }
  Bytes block_ = Bytes(size_t{1} << 16);
  size_t filled_ = 0;
  uint64_t raw_ = 1;
};

void add_moves(Fingerprint& print, const std::vector<plan::Move>& moves) {
  print.add(moves.size());
  for (const plan::Move& m : moves)
    print.add(m.src_offset, m.dst_offset, m.count, m.src_step, m.dst_step, m.file, m.shard, m.loops_at,
              m.loops, m.flags, static_cast<int>(m.src_dtype), m.compare);
}

uint64_t fingerprint(const Catalog& catalog, const TargetLayout& layout, const plan::Plan& plan) {
  Fingerprint print;
  print.add_bytes(catalog.literals);
  for (const TargetFile& file : layout.files) {
    print.add_text(file.name);
    print.add(file.size, file.make != nullptr);
    for (const FixedBytes& fixed : file.fixed) {
      print.add(fixed.offset);
      print.add_bytes(fixed.bytes);
    }
  }
  for (const TargetShard& s : layout.shards) {
    const Tensor& t = catalog.tensors[s.tensor];
    print.add_text(t.name);
    print.add_text(t.state);
    print.add(s.tensor, s.numel, static_cast<int>(t.dtype), s.is_padded);
    for (const double number : {s.factor, s.summand, t.factor, t.summand})
      print.add(std::bit_cast<uint64_t>(number));
  }
  for (const Hole& h : layout.holes)  // offsets in files that a library makes are not known yet
    print.add(h.shard, h.file, layout.files[h.file].make ? 0 : h.offset, h.first, h.count,
              static_cast<int>(h.dtype), h.is_copy);
  for (const auto* moves : {&plan.moves, &plan.compares, &plan.addends}) add_moves(print, *moves);
  for (const plan::Loop& l : plan.loops) print.add(l.count, l.src_stride, l.dst_stride);
  for (const plan::RecordCheck& c : plan.checks) print.add(c.record, c.own_pass);
  return print.finish();
}

std::string input_line(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return {};
  std::error_code ignored;
  const std::string real = std::filesystem::canonical(path, ignored).string();
  return cat(kInput, static_cast<int64_t>(st.st_size), " ", static_cast<int64_t>(st.st_mtim.tv_sec), ".",
             static_cast<int64_t>(st.st_mtim.tv_nsec), " ", static_cast<uint64_t>(st.st_ino), " ",
             real.empty() ? path : real);
}

// The path behind the three numbers of an `input` line.
std::string path_of_input(const std::string& line) {
  size_t at = kInput.size();
  for (int spaces = 0; spaces < 3 && at != std::string::npos; ++spaces) at = line.find(' ', at) + 1;
  return line.substr(std::min(at, line.size()));
}

}  // namespace

std::vector<std::string> lines_of_request(const Catalog& catalog, const ConvertOptions& options) {
  std::vector<std::string> lines{cat(kVersion, options.created_by)};
  for (const std::string& flag : options.request) {
    if (flag == "--") break;  // IN and OUT follow: the paths are told by their files
    lines.push_back(cat(kFlag, flag));
  }
  if (!options.sync) lines.push_back(cat(kFlag, "--no-sync"));
  if (!options.manifest.empty()) lines.push_back(cat(kFlag, "--manifest"));
  for (const auto& file : catalog.files) {
    std::string line = input_line(file->name());
    if (!line.empty()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> lines_of_plan(const Catalog& catalog, const TargetLayout& layout,
                                       const plan::Plan& plan, const exec::Buffers& buffers,
                                       const std::vector<KeptModuleWeight>& kept) {
  std::vector<std::string> lines;
  for (const KeptModuleWeight& k : kept) lines.push_back(cat(kKept, k.tensor, " ", k.copy));
  lines.push_back(cat(kPlan, hex(fingerprint(catalog, layout, plan), 16), " in tasks of ", buffers.task_bytes,
                      " and ", buffers.strided_bytes));
  return lines;
}

std::optional<std::string> what_changed(const std::vector<std::string>& then,
                                        const std::vector<std::string>& request) {
  size_t at = 0;
  while (at < request.size() && at < then.size() && then[at] == request[at]) ++at;
  const auto is = [](const std::string& line, std::string_view kind) { return line.starts_with(kind); };
  if (at == request.size()) {
    if (at == then.size() || is(then[at], kKept) || is(then[at], kPlan)) return std::nullopt;
    return is(then[at], kInput) ? "the input had more files" : "other flags were given";
  }
  if (is(request[at], kVersion)) return "another version of uckpt made it";
  if (is(request[at], kFlag) || (at < then.size() && is(then[at], kFlag))) return "other flags were given";
  const std::string path = path_of_input(request[at]);
  for (size_t i = at; i < then.size() && is(then[i], kInput); ++i)
    if (path_of_input(then[i]) == path) return cat(escape(path), " was changed since");
  return cat(escape(path), " was no input of it");
}

std::vector<KeptModuleWeight> kept_in(const std::vector<std::string>& run) {
  std::vector<KeptModuleWeight> kept;
  for (const std::string& line : run) {
    if (!line.starts_with(kKept)) continue;
    KeptModuleWeight k{};
    const char *begin = line.data() + kKept.size(), *end = line.data() + line.size();
    const auto [space, error] = std::from_chars(begin, end, k.tensor);
    if (error == std::errc() && space < end && std::from_chars(space + 1, end, k.copy).ec == std::errc())
      kept.push_back(k);
  }
  return kept;
}

}  // namespace uckpt
