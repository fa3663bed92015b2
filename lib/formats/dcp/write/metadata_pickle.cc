#include "lib/formats/dcp/write/metadata_pickle.h"

#include <charconv>

#include "lib/formats/torch/sizes.h"
#include "lib/pickle/pickler.h"

namespace uckpt::dcp {

namespace {

constexpr std::string_view kMetadata = "torch.distributed.checkpoint.metadata";
constexpr std::string_view kFileSystem = "torch.distributed.checkpoint.filesystem";

class Writer {
 public:
  Writer(const std::vector<WrittenTensor>& tensors, const std::vector<WrittenObject>& objects,
         const std::vector<ItemRange>& places, std::span<const TargetFile> files)
      : tensors_(tensors), objects_(objects), places_(places), files_(files) {}

  Bytes run(bool has_paths) {
    constexpr size_t kBytesOfChunk = 256;  // its box, its index and its place
    out_.expect(places_.size() * kBytesOfChunk);
    begin_object(kMetadata, "Metadata");
    out_.text("state_dict_metadata");
    out_.begin_dict();
    for (const WrittenTensor& t : tensors_) tensor(t);
    for (const WrittenObject& o : objects_) {
      out_.text(o.key);
      begin_object(kMetadata, "BytesStorageMetadata");
      end_object();
    }
    out_.end_dict();
    out_.text("planner_data");
    has_paths ? planner_data() : out_.none();
    out_.text("storage_data");
    out_.begin_dict();
    for (const WrittenTensor& t : tensors_)
      for (size_t b = 0; b < t.boxes.size(); ++b) {
        const Shape offsets = t.boxes.offsets(b);
        index(t.key, &offsets, static_cast<int64_t>(b));
        storage(places_[t.items[b]]);
      }
    for (const WrittenObject& o : objects_) {
      index(o.key, nullptr, 0);
      storage(places_[o.item]);
    }
    out_.end_dict();
    out_.text("storage_meta");
    storage_meta();
    out_.text("version");
    out_.text("1.0.0");
    end_object();
    return out_.finish();
  }

 private:
  // An instance without arguments, and the dict of its attributes.
  void begin_object(std::string_view module, std::string_view cls) {
    out_.begin_object();
    out_.global(module, cls);
    out_.begin_tuple(0);
    out_.end_tuple();
    out_.state();
    out_.begin_dict();
  }
  void end_object() {
    out_.end_dict();
    out_.end_object();
  }

  void size(const Shape& shape) { torch::write_size(out_, shape); }

  // Its state is a tuple, in which enums and layouts are calls.
  void properties(DType dtype) {
    out_.begin_object();
    out_.global(kMetadata, "TensorProperties");
    out_.begin_tuple(0);
    out_.end_tuple();
    out_.state();
    out_.begin_tuple(5);
    out_.global("torch", info(dtype).torch);
    out_.begin_call();
    out_.global("torch.serialization", "_get_layout");
    out_.begin_tuple(1);
    out_.text("torch.strided");
    out_.end_tuple();
    out_.end_call();
    out_.boolean(false);  // requires_grad
    out_.begin_call();
    out_.global(kMetadata, "_MEM_FORMAT_ENCODING");
    out_.begin_tuple(1);
    out_.integer(0);  // contiguous
    out_.end_tuple();
    out_.end_call();
    out_.boolean(false);  // pin_memory
    out_.end_tuple();
    out_.end_object();
  }

  void tensor(const WrittenTensor& t) {
    out_.text(t.key);
    begin_object(kMetadata, "TensorStorageMetadata");
    out_.text("properties");
    properties(t.dtype);
    out_.text("size");
    size(t.shape);
    out_.text("chunks");
    out_.begin_list();
    for (size_t b = 0; b < t.boxes.size(); ++b) {
      begin_object(kMetadata, "ChunkStorageMetadata");
      out_.text("offsets");
      size(t.boxes.offsets(b));
      out_.text("sizes");
      size(t.boxes.sizes(b));
      end_object();
    }
    out_.end_list();
    end_object();
  }

  void planner_data() {
    out_.begin_dict();
    for (const WrittenTensor& t : tensors_) path(t.key, t.path);
    for (const WrittenObject& o : objects_) path(o.key, o.path);
    out_.end_dict();
  }

  void path(const std::string& key, const KeyPath& parts) {
    out_.text(key);
    out_.begin_tuple(parts.size());
    for (const KeyPart& p : parts) {
      int64_t number = 0;
      if (p.is_index) {
        std::from_chars(p.text.data(), p.text.data() + p.text.size(), number);
        out_.integer(number);
      } else {
        out_.text(p.text);
      }
    }
    out_.end_tuple();
  }

  void index(const std::string& key, const Shape* offset, int64_t number) {
    begin_object(kMetadata, "MetadataIndex");
    out_.text("fqn");
    out_.text(key);
    out_.text("index");
    offset ? out_.integer(number) : out_.none();
    out_.text("offset");
    offset ? size(*offset) : out_.none();
    end_object();
  }

  void storage(const ItemRange& place) {
    begin_object(kFileSystem, "_StorageInfo");
    out_.text("relative_path");
    out_.text(files_[place.file].name);
    out_.text("offset");
    out_.integer(place.offset);
    out_.text("length");
    out_.integer(place.length);
    end_object();
  }

  void storage_meta() {
    begin_object(kMetadata, "StorageMeta");
    for (const char* name : {"checkpoint_id", "save_id", "load_id"}) {
      out_.text(name);
      out_.none();
    }
    out_.text("modules");
    out_.begin_list();
    out_.end_list();
    end_object();
  }

  const std::vector<WrittenTensor>& tensors_;
  const std::vector<WrittenObject>& objects_;
  const std::vector<ItemRange>& places_;
  const std::span<const TargetFile> files_;
  pickle::Pickler out_;
};

}  // namespace

Bytes metadata_pickle(const std::vector<WrittenTensor>& tensors, const std::vector<WrittenObject>& objects,
                      const std::vector<ItemRange>& places, std::span<const TargetFile> files,
                      bool has_paths) {
  return Writer(tensors, objects, places, files).run(has_paths);
}

}  // namespace uckpt::dcp
