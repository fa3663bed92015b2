#include "lib/formats/hugging_face/companions.h"

#include <algorithm>
#include <array>

#include "lib/base/text.h"

namespace uckpt::hugging_face {
namespace {

constexpr int64_t kLargest = 64 << 20;

constexpr std::array<std::string_view, 19> kNames = {"added_tokens.json",
                                                     "chat_template.jinja",
                                                     "chat_template.json",
                                                     "merges.txt",
                                                     "normalizer.json",
                                                     "preprocessor_config.json",
                                                     "processor_config.json",
                                                     "sentencepiece.bpe.model",
                                                     "sentencepiece.model",
                                                     "special_tokens_map.json",
                                                     "spiece.model",
                                                     "spm.model",
                                                     "tokenizer.json",
                                                     "tokenizer.model",
                                                     "tokenizer_config.json",
                                                     "video_preprocessor_config.json",
                                                     "vocab.bpe",
                                                     "vocab.json",
                                                     "vocab.txt"};

}  // namespace

bool is_companion(std::string_view name) { return std::ranges::find(kNames, name) != kNames.end(); }

void add_companions(const ModelFolder& folder, Catalog& catalog) {
  for (const std::string_view name : kNames) {
    if (!folder.has_file(name)) continue;
    const std::shared_ptr<InputFile> file = folder.open(name);
    if (file->size() > kLargest) {
      catalog.warnings.push_back(
          cat(name, " is left out: expected at most ", kLargest, " bytes, found ", file->size()));
      continue;
    }
    Object object{.origin = std::string(name), .json = "null"};
    object.file = catalog.add_file(file);
    object.size = file->size();
    catalog.objects.push_back(std::move(object));
  }
}

void lay_out_companions(const Catalog& catalog, const WriteRequest& request, TargetLayout& layout) {
  for (uint32_t i = 0; i < catalog.objects.size(); ++i) {
    const Object& object = catalog.objects[i];
    if (!is_companion(object.origin)) continue;
    if (object.size == 0) {
      add_text_file(layout, object.origin, "");
      continue;
    }
    const auto file = static_cast<uint32_t>(layout.files.size());
    const uint32_t shard = layout.add_whole_shard(catalog, request.first_object + i);
    layout.holes.push_back({shard, file, 0, 0, object.size, DType::kU8});
    TargetFile& out = layout.files.emplace_back();
    out.name = object.origin;
    out.size = object.size;
  }
}

}  // namespace uckpt::hugging_face
