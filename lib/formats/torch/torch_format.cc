#include "lib/formats/torch/torch_format.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/guards.h"
#include "lib/formats/torch/tensor_path.h"
#include "lib/formats/torch/torch_file.h"
#include "lib/pickle/fields.h"
#include "lib/pickle/numpy.h"
#include "lib/pickle/value_text.h"

namespace uckpt::torch {

namespace {

using pickle::Field;
using pickle::Kind;
using pickle::Value;

constexpr size_t kMaxName = 64 << 10;
constexpr int64_t kSmallFile = 1 << 20;

bool is_training_key(std::string_view key) {
  static constexpr std::string_view kKeys[] = {"optimizer",    "optim",     "optimizer_state_dict",
                                               "lr_scheduler", "scheduler", "rng_state"};
  return std::ranges::find(kKeys, key) != std::end(kKeys) || key.find("rng") != std::string_view::npos;
}

// Walks the tree along everything that holds a tensor or an array and enters what it finds under dotted
// paths.
class Walk {
 public:
  Walk(const TorchFile& file, const TorchFile::Registered& registered, const OpenOptions& options,
       Catalog& catalog)
      : file_(file),
        registered_(registered),
        limits_(options.limits),
        allow_expand_(options.allow_expand),
        catalog_(catalog),
        max_tensors_(static_cast<size_t>(file.pickle_record().size) + (64 << 10)) {}

  void run() {
    const Value root = file_.root();
    const pickle::Document& document = *root.document();
    holds_ = nodes_above(document, [&](uint32_t id) { return is_data(Value(&document, id)); });
    if (!visit(root, root.is_dict(), root.kind() == Kind::kDict ? "" : "tensor")) return;
    while (!path_.empty() && !catalog_stopped_) step();
  }

 private:
  struct Step {
    Value value;
    size_t next;
    size_t name_size;  // of the name up to here
    bool is_param;     // dicts only so far, and no optimizer's
    bool in_state;     // the attributes of a dict come after its entries
  };

  bool is_data(const Value& value) const {
    if (file_.tensor(value)) return true;
    const auto array = pickle::numpy_array(value);
    return array && !array->is_scalar;
  }

  void step() {
    Step& top = path_.back();
    Field field = field_at(top.value, top.next);
    if (!field.value && top.value.is_dict() && top.value.state() && !top.in_state) {
      top.in_state = true;
      field = {top.value.state(), {}, "__state__"};
    }
    if (!field.value) {
      open_.erase(top.value.id());
      path_.pop_back();
      return;
    }
    const size_t index = top.next++;
    if (!holds_[field.value.id()]) return;
    name_.resize(top.name_size);
    const std::string part = field.key            ? pickle::key_text(field.key)
                             : field.name.empty() ? cat(index)
                                                  : std::string(field.name);
    const bool is_top = path_.size() == 1;
    name_ += cat(is_top ? "" : ".", part);
    if (name_.size() > kMaxName)
      return stop("limit.name", cat("expected names of at most ", kMaxName, " bytes"));
    const bool is_param =
        top.is_param && top.value.is_dict() && !top.in_state && !(is_top && is_training_key(part));
    visit(field.value, is_param, name_);
  }

  // True if there is something to step into.
  bool visit(const Value& value, bool is_param, const std::string& name) {
    if (const auto info = file_.tensor(value)) {
      add_tensor(*info, is_param, name);
      return false;
    }
    if (value.kind() == Kind::kCall && add_array(value, name)) return false;
    if (!holds_[value.id()] || !open_.insert(value.id()).second) return false;
    const bool below_root = path_.empty();
    path_.push_back({value, 0, below_root ? 0 : name.size(), is_param, false});
    return true;
  }

  void stop(std::string code, std::string message) {
    if (!catalog_.refusal)
      catalog_.refusal = refused(std::move(code), std::move(message)).in_file(catalog_.path);
    catalog_stopped_ = true;
  }

  Tensor& enter(const std::string& name, std::string_view state, DType dtype, const Shape& shape) {
    Tensor& tensor = catalog_.tensors.emplace_back();
    tensor.name = name;
    tensor.state = state;
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.pieces.first = catalog_.piece_mark();
    names_bytes_ += name.size();
    if (!names_.insert(tensor.path()).second && !catalog_.refusal)
      catalog_.refusal = refused("name.duplicate", cat("two tensors are called ", escape(tensor.path())))
                             .in_file(catalog_.path);
    if (catalog_.tensors.size() > max_tensors_ || names_bytes_ > static_cast<size_t>(limits_.json_bytes))
      stop("limit.tensors",
           "shared parts of the tree show its tensors far more often than its size explains");
    return tensor;
  }

  // The first tensor that is exactly this one; its number is kept under `identity`.
  bool alias(Tensor& tensor, std::string identity) {
    const auto self = static_cast<uint32_t>(catalog_.tensors.size() - 1);
    const auto [found, is_new] = seen_.try_emplace(std::move(identity), self);
    if (!is_new) tensor.alias = found->second;
    return !is_new;
  }

  void add_tensor(const TensorInfo& info, bool is_param, const std::string& name) {
    Tensor& tensor = enter(name, is_param ? state::kParam : state::kOther, info.dtype, info.shape);
    tensor.refusal = info.refusal.empty() ? expansion_refusal(info, allow_expand_) : info.refusal;
    if (!tensor.refusal.empty()) return;
    tensor.layout = info.contiguous() ? "whole" : cat("view, strides ", shape_text(info.stride));
    const bool has_bytes = info.numel() > 0;
    if (has_bytes &&
        alias(tensor, cat(info.storage_key, ' ', info.offset, ' ', name_of(info.dtype), ' ',
                          static_cast<int>(info.flags), shape_text(info.shape), shape_text(info.stride))))
      return;
    catalog_.add_whole(registered_.file, registered_.record_of(info), info.offset, info.shape, info.stride,
                       info.flags);
    tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
  }

  bool add_array(const Value& value, const std::string& name) {
    const auto array = pickle::numpy_array(value);
    if (!array || array->is_scalar) return false;
    Tensor& tensor = enter(name, state::kOther, array->dtype, array->shape);
    tensor.layout = "numpy array in the pickle";
    if (array->numel() > 0 && alias(tensor, cat("numpy ", value.id()))) return true;
    catalog_.add_literal(array->row_major(), array->numel());
    tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
    return true;
  }

  const TorchFile& file_;
  const TorchFile::Registered& registered_;
  const pickle::Limits& limits_;
  const bool allow_expand_;
  Catalog& catalog_;
  size_t max_tensors_;
  size_t names_bytes_ = 0;
  bool catalog_stopped_ = false;
  std::vector<uint8_t> holds_;
  std::string name_;
  std::vector<Step> path_;
  std::unordered_set<uint32_t> open_;
  std::unordered_set<std::string> names_;
  std::unordered_map<std::string, uint32_t> seen_;
};

std::optional<int64_t> iteration_of(const Value& root) {
  for (std::string_view key : {"iteration", "global_steps", "global_step"})
    if (const auto n = root.get(key).integer()) return n;
  return std::nullopt;
}

std::string_view describe(const TorchFile& file) {
  if (file.is_legacy()) return "PyTorch file, the stream of torch before 1.6";
  return file.pickle_record().name.empty() ? "pickle file" : "PyTorch file";
}

std::string file_name(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

void add_object(const TorchFile& file, FileId id, bool want_json, Catalog& catalog) {
  const FileRecord pickle = file.pickle_record();
  Object object{file_name(catalog.path), "", id, pickle.offset, pickle.size, kNoRecord};
  try {
    if (want_json) object.json = file.json();
  } catch (Error& error) {
    if (!catalog.refusal) catalog.refusal = error.in_file(catalog.path);
  }
  catalog.objects.push_back(std::move(object));
}

void add_warnings(Catalog& catalog) {
  for (const auto& [name, trust] : catalog.globals)
    if (trust == GlobalClass::kUnknown)
      catalog.warnings.push_back(cat("class ", escape(name), " is not known: kept as plain data"));
}

}  // namespace

bool recognises(const Target& target) { return target.file && looks_like_torch(target.head); }

Catalog read(const Target& target, const OpenOptions& options) {
  if (!target.file)
    throw refused("torch.format", "expected a torch.save file, found a folder").in_file(target.path);
  const auto file = TorchFile::open(target.file, options.limits);
  // A small file is checked whole at once; the records of a large one while they are copied.
  if (options.check_crc && target.file->size() <= kSmallFile)
    for (const FileRecord& record : file->records()) check_crc(*target.file, record);
  Catalog catalog;
  catalog.kind = "torch";
  catalog.path = target.path;
  catalog.description = describe(*file);
  catalog.refusal = file->refusal();
  catalog.globals = file->globals();
  catalog.iteration = iteration_of(file->root());
  add_warnings(catalog);
  const TorchFile::Registered registered = file->register_with(catalog, target.file);
  Walk(*file, registered, options, catalog).run();
  add_object(*file, registered.file, options.want_objects, catalog);
  if (catalog.tensors.empty() && !catalog.refusal)
    catalog.refusal = refused("torch.no_tensors", "the file holds no tensors").in_file(catalog.path);
  return catalog;
}

}  // namespace uckpt::torch
