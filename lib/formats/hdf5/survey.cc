#include "lib/formats/hdf5/survey.h"

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/explorer.h"
#include "lib/formats/hdf5/sandbox.h"

namespace uckpt::hdf5 {
namespace {

constexpr uint32_t kMaxText = 1 << 20;
constexpr size_t kMaxRank = 32;
constexpr int64_t kMaxSurveyBytes = 256 << 20;  // about a million datasets
constexpr uint8_t kEntryFollows = 1, kNoMoreEntries = 2;

// --- the child ---

void put_shape(Outbox& out, const Shape& shape) {
  out.put(static_cast<uint8_t>(shape.size()));
  for (const int64_t size : shape) out.put(size);
}

void put_entry(Outbox& out, const Entry& entry) {
  out.put(kEntryFollows);
  out.put(static_cast<uint8_t>(entry.kind));
  out.put_text(entry.path);
  out.put_text(entry.note);
  out.put(entry.source);
  out.put(static_cast<uint8_t>(entry.dtype));
  out.put(static_cast<uint8_t>(entry.big_endian));
  put_shape(out, entry.shape);
  out.put(entry.offset.value_or(-1));
  out.put(entry.stored_bytes);
  put_shape(out, entry.chunk);
  out.put_text(entry.dtype_name);
  out.put_text(entry.module_dtype);
  out.put(static_cast<uint8_t>(entry.logical_shape.has_value()));
  put_shape(out, entry.logical_shape.value_or(Shape()));
}

void put_root(Outbox& out, const Survey& root) {
  out.put(static_cast<uint8_t>(root.is_consolidated));
  out.put(static_cast<uint8_t>(root.texts.size()));
  for (const auto& [name, text] : root.texts) {
    out.put_text(name);
    out.put_text(text);
  }
  out.put(static_cast<uint8_t>(root.integers.size()));
  for (const auto& [name, value] : root.integers) {
    out.put_text(name);
    out.put(value);
  }
}

// --- the parent, which believes nothing ---

Error nonsense() {
  return refused("hdf5.damaged", "the process that reads it answers nonsense: the file is damaged");
}

bool countable(const Shape& shape) {
  Shape sizes = shape;
  for (int64_t& size : sizes) size = size == 0 ? 1 : size;
  const auto numel = checked_product(sizes);
  return numel && checked_mul(*numel, 16);
}

class Listener {
 public:
  explicit Listener(Inbox& child) : child_(child) {}

  Survey hear() {
    Survey survey;
    survey.is_consolidated = flag();
    for (int n = child_.get<uint8_t>(); n > 0; --n) {
      std::string name = text();
      survey.texts[std::move(name)] = text();
    }
    for (int n = child_.get<uint8_t>(); n > 0; --n) {
      std::string name = text();
      survey.integers[std::move(name)] = child_.get<int64_t>();
    }
    for (;;) {
      const auto tag = child_.get<uint8_t>();
      if (tag == kNoMoreEntries) break;
      if (tag != kEntryFollows) throw nonsense();
      survey.entries.push_back(entry(survey.entries));
    }
    child_.expect_end();
    return survey;
  }

 private:
  bool flag() {
    const auto value = child_.get<uint8_t>();
    if (value > 1) throw nonsense();
    return value == 1;
  }

  void count(size_t bytes) {
    heard_ += static_cast<int64_t>(bytes);
    if (heard_ > kMaxSurveyBytes)
      throw refused("limit.hdf5_objects", cat("it holds too many objects: expected at most ",
                                              kMaxSurveyBytes >> 20, " MiB of names and shapes"));
  }

  std::string text() {
    std::string value = child_.get_text(kMaxText);
    count(value.size());
    return value;
  }

  Shape shape() {
    const auto rank = child_.get<uint8_t>();
    if (rank > kMaxRank) throw nonsense();
    Shape sizes(rank);
    for (int64_t& size : sizes) size = child_.get<int64_t>();
    return sizes;
  }

  Shape countable_shape() {
    Shape sizes = shape();
    if (!countable(sizes)) throw nonsense();
    return sizes;
  }

  Entry entry(const std::vector<Entry>& earlier) {
    Entry e;
    count(sizeof e);
    const auto kind = child_.get<uint8_t>();
    if (kind > static_cast<uint8_t>(Entry::Kind::kRows)) throw nonsense();
    e.kind = static_cast<Entry::Kind>(kind);
    e.path = text();
    e.note = text();
    // A dataset without a reason not to be read would be a tensor without bytes.
    if ((e.kind == Entry::Kind::kOther || e.kind == Entry::Kind::kRows) && e.note.empty()) throw nonsense();
    e.source = child_.get<uint32_t>();
    if (e.kind == Entry::Kind::kAlias &&
        (e.source >= earlier.size() || earlier[e.source].kind == Entry::Kind::kAlias ||
         earlier[e.source].kind == Entry::Kind::kLink))
      throw nonsense();
    const auto dtype = child_.get<uint8_t>();
    if (dtype >= kDTypeCount || item_size(static_cast<DType>(dtype)) == 0) throw nonsense();
    e.dtype = static_cast<DType>(dtype);
    e.big_endian = flag();
    e.shape = countable_shape();
    const auto offset = child_.get<int64_t>();
    if (offset >= 0) e.offset = offset;
    e.stored_bytes = child_.get<int64_t>();
    e.chunk = countable_shape();
    e.dtype_name = text();
    e.module_dtype = text();
    const bool has_shape = flag();
    Shape logical = shape();
    if (has_shape) e.logical_shape = std::move(logical);
    return e;
  }

  Inbox& child_;
  int64_t heard_ = 0;
};

}  // namespace

void tell_survey(Outbox& out, const std::string& path) {
  const Handle file = open_for_reading(path);
  out.close_the_door();
  const Survey root = read_root(file);
  put_root(out, root);
  explore(file, root.is_consolidated, [&](const Entry& entry) { put_entry(out, entry); });
  out.put(kNoMoreEntries);
}

Survey hear_survey(Inbox& answer) { return Listener(answer).hear(); }

Survey survey_file(const std::string& path) {
  Sandbox child([&](Outbox& out) { tell_survey(out, path); }, SandboxLimits{});
  return hear_survey(child);
}

}  // namespace uckpt::hdf5
