// How many files may stay open: files are many, descriptors few. A file that gets none is opened for each
// access.
#pragma once

namespace uckpt {

bool reserve_descriptor();  // false: there are none to spare
void release_descriptor();

}  // namespace uckpt
