#include "lib/formats/torch/torch_writer.h"

#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/plain_names.h"
#include "lib/formats/torch/archive.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/formats/torch/sizes.h"
#include "lib/io/input.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"

namespace uckpt::torch {

namespace {

using pickle::Kind;
using pickle::Known;
using pickle::Value;

// The file to be: its pickle and its storages.
class Output {
 public:
  Output(const Catalog& catalog, const WriteRequest& request)
      : catalog_(catalog), request_(request), archive_(archive_root(request.path)) {}

  pickle::Pickler& out() { return out_; }
  TargetLayout& layout() { return layout_; }
  const WriteRequest& request() const { return request_; }
  const Catalog& catalog() const { return catalog_; }

  const Tensor& tensor_of(size_t i) const { return catalog_.tensors[request_.tensors[i]]; }

  // The storage that is all of the i-th requested tensor; names of one tensor share it.
  const std::string& storage(size_t i) {
    const uint32_t source = tensor_of(i).alias.value_or(request_.tensors[i]);
    const DType dtype = request_.dtype_of(catalog_, i);
    const auto [found, is_new] = keys_.try_emplace({source, dtype});
    if (!is_new) return found->second;
    if (units_of(catalog_.tensors[source]) == 0) return found->second = archive_.add_storage(0);
    const uint32_t shard = layout_.add_whole_shard(catalog_, source);
    return found->second = archive_.add_storage(Hole{shard, 0, 0, 0, layout_.shards[shard].numel, dtype});
  }

  void tensor(size_t i, bool requires_grad = false) {
    const Tensor& t = tensor_of(i);
    const DType dtype = request_.dtype_of(catalog_, i);
    const DTypeClass kind = info(dtype).kind;
    requires_grad &= kind == DTypeClass::kFloat || kind == DTypeClass::kComplex;
    try {
      out_.tensor({dtype, storage(i), numel_of(t.shape), t.shape, row_major(t.shape), 0, requires_grad});
    } catch (Error& e) {
      throw e.in_tensor(t.path()).in_file(catalog_.path).hint(way_round(dtype));
    }
  }

  TargetLayout finish() && {
    std::move(archive_).lay_out("", out_.finish(), layout_);
    return std::move(layout_);
  }

 private:
  const Catalog& catalog_;
  const WriteRequest& request_;
  TargetLayout layout_;
  Archive archive_;
  pickle::Pickler out_;
  std::map<std::pair<uint32_t, DType>, std::string> keys_;
};

// The tree of the torch.save file that the input is, or was made of.
class Tree {
 public:
  // Nothing if there is no such file, or it does not have all of the requested tensors.
  static std::unique_ptr<Tree> of(const Catalog& catalog, const WriteRequest& request) {
    if (catalog.objects.size() != 1) return nullptr;
    const Object& object = catalog.objects.front();
    const std::string name = object.origin.substr(object.origin.rfind('/') + 1);
    if (object.size == 0 || (catalog.kind != "torch" && deepspeed::parse_name(name))) return nullptr;
    std::unique_ptr<Tree> tree(new Tree);
    Bytes bytes = catalog.files[object.file]->read_range(object.offset, object.size);
    try {
      tree->document_ = pickle::parse_whole(std::move(bytes), {});
    } catch (const Error&) {
      return nullptr;
    }
    return tree->find(catalog, request) ? std::move(tree) : nullptr;
  }

  void write(Output& output) {
    output_ = &output;
    replace_ = [this](const Value& value, pickle::Pickler&) { return replace(value); };
    output.out().copy(document_->root(), replace_);
    auto& notes = output.layout().notes;
    if (dropped_ > 0)
      notes.push_back(cat(dropped_, dropped_ == 1 ? " tensor is" : " tensors are",
                          " left out of the tree, since not selected: ", escape(first_dropped_),
                          dropped_ == 1 ? "" : ", …"));
    if (attributes_lost_ > 0)
      notes.push_back(cat("left out: the Python attributes of ", attributes_lost_,
                          attributes_lost_ == 1 ? " tensor" : " tensors"));
    if (uncast_ > 0)
      notes.push_back(
          cat(uncast_, uncast_ == 1 ? " numpy array keeps its" : " numpy arrays keep their", " type"));
  }

 private:
  using Entry = std::pair<uint32_t, size_t>;  // a dict and the number of an entry

  // Joins the tree's names with the request's.
  bool find(const Catalog& catalog, const WriteRequest& request) {
    std::unordered_map<std::string, size_t> wanted;
    for (size_t i = 0; i < request.tensors.size(); ++i)
      wanted.emplace(catalog.tensors[request.tensors[i]].path(), i);
    leaves_ = leaves_of(*document_);
    std::set<Entry> kept_entries;
    size_t found = 0;
    const WalkEnd end = walk_names(
        document_->root(), [&](const Value& value) { return leaves_[value.id()] != 0; },
        [&](const NamedLeaf& leaf) {
          const auto at = wanted.find(
              cat(leaf.is_param && !is_array(leaf.value) ? state::kParam : state::kOther, '/', leaf.name));
          const std::optional<Entry> entry =
              leaf.entry ? std::optional(Entry(leaf.parent.id(), *leaf.entry)) : std::nullopt;
          if (at == wanted.end()) {
            if (dropped_++ == 0) first_dropped_ = leaf.name;
            if (entry) dropped_entries_.insert(*entry);
            return true;
          }
          ++found;
          kept_.emplace(leaf.value.id(), at->second);
          if (entry) kept_entries.insert(*entry);
          return true;
        });
    for (const Entry& entry : kept_entries) dropped_entries_.erase(entry);
    return end == WalkEnd::kWhole && found == wanted.size();
  }

  bool is_array(const Value& value) const {
    return value.kind() == Kind::kCall && pickle::known_of(value) >= Known::kNumpyDtype;
  }

  bool replace(const Value& value) {
    if (leaves_[value.id()]) return replace_leaf(value);
    if (!value.is_dict() || document_->cyclic()) return false;
    const auto dropped = dropped_entries_.lower_bound({value.id(), 0});
    if (dropped == dropped_entries_.end() || dropped->first != value.id()) return false;
    pickle::Pickler& out = output_->out();
    out.begin_dict_like(value);
    for (size_t i = 0; i < value.size(); ++i) {
      if (dropped_entries_.contains({value.id(), i})) continue;
      const auto [key, item] = value.entry(i);
      out.copy(key, replace_);
      out.copy(item, replace_);
    }
    if (value.state()) {
      out.state();
      out.copy(value.state(), replace_);
    }
    out.end_dict();
    return true;
  }

  bool replace_leaf(const Value& value) {
    const auto found = kept_.find(value.id());
    if (found == kept_.end()) {
      output_->out().none();
      return true;
    }
    if (is_array(value)) {
      const Tensor& t = output_->tensor_of(found->second);
      uncast_ += output_->request().dtype_of(output_->catalog(), found->second) != t.dtype;
      return false;
    }
    if (value.kind() == Kind::kPersistent)
      write_storage(value, found->second);
    else
      write_tensor(value, found->second);
    return true;
  }

  void write_tensor(const Value& value, size_t i) {
    // _rebuild_from_type_v2(function, class, arguments, state): function(*arguments) is the tensor.
    Known how = pickle::known_of(value);
    Value args = value.args(), attributes;
    while (how == Known::kRebuildFromType) {
      if (!attributes) attributes = args.at(3);
      how = pickle::known_of(args.at(0));
      args = args.at(2);
    }
    pickle::Pickler& out = output_->out();
    if (how == Known::kRebuildParameterWithState) attributes = args.at(3);
    if (how != Known::kRebuildParameter && how != Known::kRebuildParameterWithState) {
      attributes_lost_ += attributes ? 1 : 0;
      return output_->tensor(i, args.size() > 4 && args.at(4).boolean().value_or(false));
    }
    out.begin_call();
    out.global("torch._utils", attributes ? "_rebuild_parameter_with_state" : "_rebuild_parameter");
    out.begin_tuple(attributes ? 4 : 3);
    output_->tensor(i);
    out.boolean(args.at(1).boolean().value_or(true));
    out.begin_dict(pickle::DictType::kOrderedDict);  // hooks
    out.end_dict();
    if (attributes) out.copy(attributes, replace_);
    out.end_tuple();
    out.end_call();
  }

  // A storage saved by itself.
  void write_storage(const Value& value, size_t i) {
    pickle::Pickler& out = output_->out();
    const Tensor& t = output_->tensor_of(i);
    const DType dtype = output_->request().dtype_of(output_->catalog(), i);
    const Value id = value.callable(), cls = id.at(1);
    if (pickle::known_of(cls) != Known::kUntypedStorage)
      return pickle::storage_class(dtype).empty()
                 ? output_->tensor(i)
                 : out.storage(dtype, output_->storage(i), numel_of(t.shape));
    out.copy(value, [&](const Value& part, pickle::Pickler&) {
      if (part.id() != id.id()) return false;
      out.begin_tuple(5);
      out.text("storage");
      out.copy(cls);
      out.text(output_->storage(i));
      out.text("cpu");
      out.integer(units_of(t) * unit_size(dtype));
      out.end_tuple();
      return true;
    });
  }

  std::unique_ptr<pickle::Document> document_;
  std::vector<uint8_t> leaves_;
  std::unordered_map<uint32_t, size_t> kept_;  // node -> index into the request
  std::set<Entry> dropped_entries_;
  size_t dropped_ = 0, attributes_lost_ = 0, uncast_ = 0;
  std::string first_dropped_;
  Output* output_ = nullptr;
  pickle::Pickler::Replace replace_;
};

void write_plain(Output& output) {
  auto& notes = output.layout().notes;
  const auto taken = plain_tensors(output.catalog(), output.request(), notes);
  if (!output.catalog().objects.empty())
    notes.push_back("left out, since the output is a dict of tensors alone: the state that is no tensor");
  output.out().begin_dict(pickle::DictType::kOrderedDict);
  for (const PlainTensor& p : taken) {
    output.out().text(p.name);
    output.tensor(p.index);
  }
  output.out().end_dict();
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  const std::unique_ptr<Tree> tree = Tree::of(catalog, request);  // outlives the pickler that copies it
  Output output(catalog, request);
  if (tree)
    tree->write(output);
  else
    write_plain(output);
  return std::move(output).finish();
}

}  // namespace uckpt::torch
