// The pickle machine: one loop over a byte cursor that builds data and nothing else.
#pragma once

#include <cstddef>
#include <memory>

#include "lib/base/bytes.h"
#include "lib/pickle/document.h"
#include "lib/pickle/folder.h"
#include "lib/pickle/value.h"
#include "lib/pickle/window.h"

namespace uckpt::pickle {

// Parses one pickle that starts at `start`. Bytes after STOP are the caller's affair: see Document::end().
// Throws Error (`pickle.…`, `limit.…`) naming opcode and byte; never executes, imports or looks up anything.
std::unique_ptr<Document> parse(std::shared_ptr<const Bytes> bytes, size_t start, const Limits& limits);
// The same for a pickle that must fill its bytes (`data.pkl`): bytes after STOP are refused.
std::unique_ptr<Document> parse_whole(Bytes bytes, const Limits& limits);

// For a pickle at the front of something long: `bytes` is the beginning of `available` bytes. Nothing comes
// back where more of them are needed to tell.
std::unique_ptr<Document> parse_prefix(std::shared_ptr<const Bytes> bytes, size_t available,
                                       const Limits& limits);

// For a pickle with very many objects that `folder` takes. Nothing is held of its bytes but the texts that
// stay in the tree, and nothing is remembered that the pickle does not ask for again; it is read twice.
std::unique_ptr<Document> parse_folding(size_t size, const ReadAt& read, Folder& folder,
                                        const Limits& limits);

}  // namespace uckpt::pickle
