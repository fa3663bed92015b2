#include "lib/formats/hdf5/explorer.h"

#include <array>
#include <cstring>
#include <unordered_map>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"
#include "lib/formats/hdf5/dataset_view.h"
#include "lib/formats/hdf5/plain_header.h"

namespace uckpt::hdf5 {
namespace {

constexpr size_t kMaxDepth = 256;
constexpr size_t kMaxPathBytes = 1 << 20;

// Where an object lies in the file, 8 bytes at least, which begin with its address; what the library calls it
// has changed with version 1.12.
using ObjectKey = std::string;
#if H5_VERSION_GE(1, 12, 0)
using LinkInfo = H5L_info2_t;
ObjectKey key_of(const LinkInfo& info) {
  return {reinterpret_cast<const char*>(info.u.token.__data), sizeof info.u.token.__data};
}
herr_t each_link(hid_t group, herr_t (*visit)(hid_t, const char*, const LinkInfo*, void*), void* data) {
  return H5Literate2(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, data);
}
ObjectKey key_of_object(hid_t object) {
  H5O_info2_t info;
  checked_call(H5Oget_info3(object, &info, H5O_INFO_BASIC), "look at an object");
  return {reinterpret_cast<const char*>(info.token.__data), sizeof info.token.__data};
}
#else
using LinkInfo = H5L_info_t;
ObjectKey key_of(const LinkInfo& info) {
  return {reinterpret_cast<const char*>(&info.u.address), sizeof info.u.address};
}
herr_t each_link(hid_t group, herr_t (*visit)(hid_t, const char*, const LinkInfo*, void*), void* data) {
  return H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, data);
}
ObjectKey key_of_object(hid_t object) {
  H5O_info_t info;
  checked_call(H5Oget_info2(object, &info, H5O_INFO_BASIC), "look at an object");
  return {reinterpret_cast<const char*>(&info.addr), sizeof info.addr};
}
#endif

struct Link {
  std::string name;
  H5L_type_t type;
  ObjectKey key;  // of hard links
};

// Called from C: no exception may leave it.
herr_t collect_link(hid_t, const char* name, const LinkInfo* info, void* links) noexcept try {
  static_cast<std::vector<Link>*>(links)->push_back(
      {name, info->type, info->type == H5L_TYPE_HARD ? key_of(*info) : ObjectKey()});
  return 0;
} catch (...) {
  return -1;
}

struct OpenGroup {
  Handle group;
  std::vector<Link> links;
  size_t next = 0;
  size_t path_bytes = 0;  // of this group's own path
};

class Explorer {
 public:
  Explorer(hid_t file, bool with_attributes, const std::function<void(const Entry&)>& tell)
      : file_(file), with_attributes_(with_attributes), tell_(tell), plain_(file, with_attributes) {}

  void walk() {
    Handle root = checked(H5Gopen2(file_, "/", H5P_DEFAULT), "open the root group");
    seen_.emplace(key_of_object(root), kNoEntry);
    enter(std::move(root));
    while (!stack_.empty()) {
      OpenGroup& top = stack_.back();
      path_.resize(top.path_bytes);
      if (top.next == top.links.size()) {
        stack_.pop_back();
        continue;
      }
      const Link link = std::move(top.links[top.next++]);
      if (!path_.empty()) path_ += '/';
      path_ += link.name;
      if (path_.size() > kMaxPathBytes) throw refused("hdf5.damaged", "its groups nest too deeply");
      link.type == H5L_TYPE_HARD ? follow(top.group, link) : skip(link);
    }
  }

 private:
  void enter(Handle group) {
    if (stack_.size() >= kMaxDepth)
      throw refused("hdf5.damaged",
                    cat("its groups nest too deeply: expected at most ", kMaxDepth, " levels"));
    OpenGroup opened{std::move(group), {}, 0, path_.size()};
    checked_call(each_link(opened.group, collect_link, &opened.links),
                 cat("list the group `/", escape(path_), "`"));
    stack_.push_back(std::move(opened));
  }

  void skip(const Link& link) {
    Entry entry;
    entry.kind = Entry::Kind::kLink;
    entry.note = link.type == H5L_TYPE_SOFT       ? "a soft link"
                 : link.type == H5L_TYPE_EXTERNAL ? "a link to another file"
                                                  : "a user-defined link";
    say(std::move(entry));
  }

  void follow(hid_t group, const Link& link) {
    const auto [seen, is_new] = seen_.try_emplace(link.key, kNoEntry);
    if (!is_new) return again(seen->second);
    const auto address = load_le<uint64_t>(reinterpret_cast<const uint8_t*>(link.key.data()));
    if (auto entry = plain_.look(address)) {
      seen->second = told_;
      return say(std::move(*entry));
    }
    Handle object(H5Oopen(group, link.name.c_str(), H5P_DEFAULT));
    if (object < 0) return list_unopened(seen->second);
    const H5I_type_t type = H5Iget_type(object);
    if (type == H5I_GROUP) return enter(std::move(object));
    if (type != H5I_DATASET) {  // a named datatype
      seen->second = kNoTensor;
      return;
    }
    Entry entry = describe_dataset(object, with_attributes_);
    plain_.learn(address, entry);
    seen->second = told_;
    say(std::move(entry));
  }

  // A newer library wrote it: the others are read all the same.
  void list_unopened(uint32_t& seen) {
    const std::string message = last_failure();
    if (message.find("version") == std::string::npos) fail(cat("open `", escape(path_), "`"));
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    Entry entry;
    entry.note = cat("the HDF5 library here, ", major, ".", minor, ".", release, ", cannot open it (",
                     message, "): it needs a newer one");
    seen = told_;
    say(std::move(entry));
  }

  // Another link to something known: a further name of a dataset; a group is not entered twice.
  void again(uint32_t source) {
    if (source == kNoTensor) return;
    Entry entry;
    entry.kind = source == kNoEntry ? Entry::Kind::kLink : Entry::Kind::kAlias;
    if (source == kNoEntry) {
      entry.note = "a further link to a group";
    } else {
      entry.source = source;
    }
    say(std::move(entry));
  }

  void say(Entry entry) {
    entry.path = path_;
    tell_(entry);
    ++told_;
  }

  static constexpr uint32_t kNoEntry = 0xffffffff, kNoTensor = 0xfffffffe;
  hid_t file_;
  bool with_attributes_;
  const std::function<void(const Entry&)>& tell_;
  PlainHeaders plain_;
  std::vector<OpenGroup> stack_;
  std::string path_;
  std::unordered_map<ObjectKey, uint32_t> seen_;
  uint32_t told_ = 0;
};

}  // namespace

Handle open_for_reading(const std::string& path) {
  const Handle access = checked(H5Pcreate(H5P_FILE_ACCESS), "make a property list");
  checked_call(H5Pset_fapl_sec2(access), "set a property");  // headers are read past it, by its descriptor
  checked_call(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "set a property");
  checked_call(H5Pset_file_locking(access, false, true), "set a property");
  return checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "open it as HDF5");
}

Survey read_root(hid_t file) {
  Survey survey;
  const Handle root = checked(H5Gopen2(file, "/", H5P_DEFAULT), "open the root group");
  survey.is_consolidated = text_attribute(root, root_attribute::kFormat) == kFormatName;
  if (!survey.is_consolidated) return survey;
  using namespace root_attribute;
  for (const char* name : {kCreatedBy, kSourceKind})
    if (auto text = text_attribute(root, name)) survey.texts.emplace(name, std::move(*text));
  for (const char* name : {kVersion, kIteration, kParameterCount, kZeroStage, kTp, kPp, kDp, kEp}) {
    const auto values = integer_attribute(root, name);
    if (values && values->size() == 1) survey.integers.emplace(name, values->front());
  }
  return survey;
}

void explore(hid_t file, bool with_attributes, const std::function<void(const Entry&)>& tell) {
  Explorer(file, with_attributes, tell).walk();
}

}  // namespace uckpt::hdf5
