#include "lib/formats/torch/file_catalog.h"

#include <unordered_map>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/torch/guards.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/pickle/numpy.h"

namespace uckpt::torch {
namespace {

using pickle::Value;

constexpr int64_t kSmallFile = 1 << 20;

// Enters the tensors and arrays of the tree under their names.
class CatalogWalk {
 public:
  CatalogWalk(const TorchFile& file, const TorchFile::Registered& registered, const OpenOptions& options,
              Catalog& catalog)
      : file_(file),
        registered_(registered),
        limits_(options.limits),
        allow_expand_(options.allow_expand),
        catalog_(catalog),
        max_tensors_(static_cast<size_t>(file.pickle_record().size) + (64 << 10)) {}

  void run() {
    const WalkEnd end = walk_names(
        file_.root(), [&](const Value& value) { return is_data(value); },
        [&](const NamedLeaf& leaf) {
          if (const auto info = file_.tensor(leaf.value))
            add_tensor(*info, leaf.is_param, leaf.name);
          else
            add_array(leaf.value, leaf.name);
          if (leaf.is_numbered && numbered_++ == 0) first_numbered_ = leaf.name;
          return !is_stopped_;
        });
    if (numbered_ > 0)
      catalog_.warnings.push_back(cat(numbered_, numbered_ == 1 ? " tensor comes" : " tensors come",
                                      " to a name that another one has, and a number is put behind it: ",
                                      escape(first_numbered_, 100), numbered_ == 1 ? "" : ", …"));
    if (end == WalkEnd::kLongName) stop("limit.name", cat("expected names of at most ", kMaxName, " bytes"));
  }

 private:
  bool is_data(const Value& value) const {
    if (file_.tensor(value)) return true;
    const auto array = pickle::numpy_array(value);
    return array && !array->is_scalar;
  }

  const std::string& name_of_file() const { return catalog_.files[registered_.file]->name(); }

  void stop(std::string code, std::string message) {
    if (!catalog_.refusal)
      catalog_.refusal = refused(std::move(code), std::move(message)).in_file(name_of_file());
    is_stopped_ = true;
  }

  Tensor& enter(const std::string& name, std::string_view state, DType dtype, const Shape& shape) {
    Tensor& tensor = catalog_.tensors.emplace_back();
    tensor.name = name;
    tensor.state = state;
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.pieces.first = catalog_.piece_mark();
    names_bytes_ += name.size();
    if (++entered_ > max_tensors_ || names_bytes_ > static_cast<size_t>(limits_.json_bytes))
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

  void add_array(const Value& value, const std::string& name) {
    const auto array = pickle::numpy_array(value);
    Tensor& tensor = enter(name, state::kOther, array->dtype, array->shape);
    tensor.layout = "numpy array in the pickle";
    if (array->numel() > 0 && alias(tensor, cat("numpy ", value.id()))) return;
    catalog_.add_literal(array->row_major(), array->numel());
    tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
  }

  const TorchFile& file_;
  const TorchFile::Registered& registered_;
  const pickle::Limits& limits_;
  const bool allow_expand_;
  Catalog& catalog_;
  size_t max_tensors_;
  size_t entered_ = 0, names_bytes_ = 0;
  bool is_stopped_ = false;
  size_t numbered_ = 0;
  std::string first_numbered_;
  std::unordered_map<std::string, uint32_t> seen_;
};

}  // namespace

std::unique_ptr<TorchFile> open_checked(const std::shared_ptr<ByteSource>& source,
                                        const OpenOptions& options) {
  auto file = TorchFile::open(source, options.limits);
  if (options.check_crc && source->size() <= kSmallFile)
    for (const FileRecord& record : file->records()) check_crc(*source, record);
  return file;
}

FileId enter_tensors(const TorchFile& file, const std::shared_ptr<ByteSource>& source,
                     const OpenOptions& options, Catalog& catalog) {
  if (std::optional<Error> refusal = file.refusal_but_cycle(); refusal && !catalog.refusal)
    catalog.refusal = refusal->in_file(source->name());
  merge_globals(catalog.globals, file.globals());
  const TorchFile::Registered registered = file.register_with(catalog, source);
  CatalogWalk(file, registered, options, catalog).run();
  return registered.file;
}

void enter_tree(const TorchFile& file, FileId id, const OpenOptions& options, Catalog& catalog) {
  const FileRecord pickle = file.pickle_record();
  const std::string& path = catalog.files[id]->name();
  Object object{std::string(base_of(path)), "", id, pickle.offset, pickle.size, kNoRecord};
  try {
    // What contains itself has no end as JSON; the pickle beside the view has it.
    const bool is_cyclic = file.root().document()->cyclic();
    if (options.want_objects)
      object.json = is_cyclic ? R"({"__cycle__":"a value contains itself"})" : file.json();
  } catch (Error& error) {
    if (!catalog.refusal) catalog.refusal = error.in_file(path);
  }
  catalog.objects.push_back(std::move(object));
}

}  // namespace uckpt::torch
